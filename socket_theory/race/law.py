"""Exact laws of the soft collision of a query and a key in one table of P planes (R2-R4).

The planes are independent, so every moment of a product of bits is the P-th power of a moment of one bit (`bit`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from socket_theory.core.angular import hard_kernel
from socket_theory.core.checks import require_count, require_positive
from socket_theory.core.power import power_step
from socket_theory.race.bit import gap, products

Float = NDArray[np.float64]


@dataclass(frozen=True)
class RaceKernel:
    """The law of w = <phi(q), phi(k)> = 2^-P prod_p (1 + a_p b_p) in one table of Gaussian planes.

    a = tanh(beta tanh <w_p, q>) and b = tanh(beta tanh <w_p, k>), so the law depends on the angle between query and key
    and on both lengths. Methods broadcast angles in [0, pi] and lengths of at least 0, and return float64; moments of a
    bit are exact to 1e-11. A zero vector has a = 0, so w = 2^-P.

    Parameters
    ----------
    num_planes : int
        P >= 1. Raised, w falls faster with the angle, as (1 - theta/pi)^P does, and varies more relative to its mean.
    beta : float
        Above 0. Raised, the mean of w comes nearer to (1 - theta/pi)^P, and w, then nearly 0 or 1, varies more over
        planes. Lowered towards 0, w becomes 2^-P for every key.

    Raises
    ------
    TypeError, ValueError
        If a parameter, an angle or a length is out of range.
    """

    num_planes: int
    beta: float

    def __post_init__(self) -> None:
        require_count("num_planes", self.num_planes)
        require_positive("beta", self.beta)

    def hard_kernel(self, theta: ArrayLike) -> Float:
        """kappa_0 = (1 - theta/pi)^P, the limit beta -> infinity (S3)."""
        return hard_kernel(theta, self.num_planes)

    def weight_range(self) -> tuple[float, float]:
        """((1 - T^2)/2)^P and ((1 + T^2)/2)^P, T = tanh beta: the infimum and supremum of w over all planes (R4)."""
        up, down = 1 / (1 + math.exp(-2 * self.beta)), 1 / (1 + math.exp(min(2 * self.beta, 700.0)))
        return (2 * up * down) ** self.num_planes, (up**2 + down**2) ** self.num_planes

    def gap(self, norm: ArrayLike) -> Float:
        """eps_beta(rho) = E sigma(-2 beta |tanh(rho g)|), how far a vector of length rho is from a hard bucket (R3)."""
        return gap(self.beta, norm)

    def bit_mean(self, theta: ArrayLike, query_norm: ArrayLike, key_norm: ArrayLike) -> Float:
        """g_beta = 1/2 + E[a b]/2, the mean of one bit (R2)."""
        return self._bit(theta, query_norm, key_norm)[0]

    def bit_second_moment(self, theta: ArrayLike, query_norm: ArrayLike, key_norm: ArrayLike) -> Float:
        """E[1 + 2 a b + a^2 b^2]/4, the second moment of one bit (R2)."""
        mean, variance = self._bit(theta, query_norm, key_norm)
        return np.asarray(mean**2 + variance)

    def mean(self, theta: ArrayLike, query_norm: ArrayLike, key_norm: ArrayLike) -> Float:
        """kappa = E w = g_beta^P (R2)."""
        return np.asarray(self.bit_mean(theta, query_norm, key_norm) ** self.num_planes)

    def second_moment(self, theta: ArrayLike, query_norm: ArrayLike, key_norm: ArrayLike) -> Float:
        """E w^2 (R2)."""
        return np.asarray(self.bit_second_moment(theta, query_norm, key_norm) ** self.num_planes)

    def variance(self, theta: ArrayLike, query_norm: ArrayLike, key_norm: ArrayLike) -> Float:
        """Var w = E w^2 - kappa^2, also where it is small, as at small beta (R2)."""
        mean, variance = self._bit(theta, query_norm, key_norm)
        return power_step(mean**2, variance, self.num_planes)

    def _bit(self, theta: ArrayLike, query_norm: ArrayLike, key_norm: ArrayLike) -> tuple[Float, Float]:
        """Mean and variance of one bit."""
        first, square = products(self.beta, theta, query_norm, key_norm)
        return np.asarray((1 + first) / 2), np.asarray(np.maximum(square - first**2, 0.0) / 4)
