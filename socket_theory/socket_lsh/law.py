"""Exact laws of soft collisions with one table of P planes: means, second moments, pair moments (S3-S6, S15).

The planes are independent, so every moment of a product of bits is the P-th power of a moment of one bit (`bit`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from socket_theory.core.angular import hard_kernel
from socket_theory.core.checks import require_count, require_positive
from socket_theory.core.hashing import QueryMap, query_map_bound
from socket_theory.core.power import power_step
from socket_theory.socket_lsh.bit import BitLaw

Float = NDArray[np.float64]


@dataclass(frozen=True)
class SoftKernel:
    """The law of a soft collision w = prod_p sigma(2 h_p s_p / tau) over one table of Gaussian planes.

    Methods broadcast their arguments, angles in [0, pi] and query norms rho >= 0, and return float64. Moments of a bit
    are exact to 1e-12, and the means kappa to as many digits. A zero query has h = 0, so each of its bits is 1/2.

    Parameters
    ----------
    num_planes : int
        P >= 1.
    temperature : float
        tau > 0.
    query_map : {"tanh_scaled", "tanh", "linear"}
    head_dim : int
        d, which only `tanh_scaled` uses.

    Raises
    ------
    ValueError
        If a parameter, an angle or a norm is out of range.
    """

    num_planes: int
    temperature: float
    query_map: QueryMap
    head_dim: int

    def __post_init__(self) -> None:
        require_count("num_planes", self.num_planes)
        require_count("head_dim", self.head_dim)
        require_positive("temperature", self.temperature)
        if self.query_map not in get_args(QueryMap):
            known = ", ".join(get_args(QueryMap))
            raise ValueError(f"query_map={self.query_map!r} is unknown: pass one of {known}.")

    @property
    def bit(self) -> BitLaw:
        """The law of one of the P bits."""
        return BitLaw(self.temperature, self.query_map, self.head_dim)

    def hard_kernel(self, theta: ArrayLike) -> Float:
        """kappa_0(theta), the limit tau -> 0 (S3)."""
        return hard_kernel(theta, self.num_planes)

    def weight_range(self) -> tuple[float, float]:
        """(sigma_-, sigma_+), the infimum and supremum of w over all planes."""
        from scipy.special import expit

        steepest = 2 * query_map_bound(self.query_map, self.head_dim) / self.temperature
        return float(expit(-steepest) ** self.num_planes), float(expit(steepest) ** self.num_planes)

    def temperature_gap(self, query_norm: ArrayLike) -> Float:
        """eps_tau(rho) = E sigma(-2|h|/tau), which bounds |mu - (1 - theta/pi)| at every theta (S6)."""
        return self.bit.gap(query_norm)

    def bit_mean(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """mu = E sigma(2 h s / tau), the mean of one bit (S4)."""
        return self.bit.mean(theta, query_norm)

    def bit_second_moment(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """nu = E sigma(2 h s / tau)^2, the second moment of one bit (S5)."""
        return self.bit.second_moment(theta, query_norm)

    def mean(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """kappa_tau = E w = mu^P, the soft angular kernel (S4)."""
        return np.asarray(self.bit.mean(theta, query_norm) ** self.num_planes)

    def second_moment(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """E w^2 = nu^P (S5)."""
        return np.asarray(self.bit.second_moment(theta, query_norm) ** self.num_planes)

    def variance(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """Var w = nu^P - mu^2P (S5)."""
        return power_step(self.bit.mean(theta, query_norm) ** 2, self.bit.variance(theta, query_norm), self.num_planes)

    def mean_difference(self, theta_a: ArrayLike, theta_b: ArrayLike, query_norm: ArrayLike) -> Float:
        """Delta = E[w_a - w_b], also where the means nearly agree, as at large tau (S14)."""
        step = self.bit.excess(theta_a, query_norm) - self.bit.excess(theta_b, query_norm)
        return power_step(self.bit.mean(theta_b, query_norm), step, self.num_planes)

    def bit_pair_moment(
        self, theta_a: ArrayLike, theta_b: ArrayLike, theta_ab: ArrayLike, query_norm: ArrayLike
    ) -> Float:
        """E of the product of one bit of two keys, at angles theta_a, theta_b to the query and theta_ab apart (S15)."""
        apart = self.bit.mean(theta_a, query_norm) * self.bit.mean(theta_b, query_norm)
        return np.maximum(apart + self.bit.covariance(theta_a, theta_b, theta_ab, query_norm), 0.0)

    def pair_moment(self, theta_a: ArrayLike, theta_b: ArrayLike, theta_ab: ArrayLike, query_norm: ArrayLike) -> Float:
        """E[w_a w_b], both keys in one table (S15)."""
        return np.asarray(self.bit_pair_moment(theta_a, theta_b, theta_ab, query_norm) ** self.num_planes)

    def covariance(self, theta_a: ArrayLike, theta_b: ArrayLike, theta_ab: ArrayLike, query_norm: ArrayLike) -> Float:
        """Cov(w_a, w_b) = E[w_a w_b] - kappa_a kappa_b, also where it is small, as at large tau (S15)."""
        apart = self.bit.mean(theta_a, query_norm) * self.bit.mean(theta_b, query_norm)
        return power_step(apart, self.bit.covariance(theta_a, theta_b, theta_ab, query_norm), self.num_planes)

    def difference_variance(
        self, theta_a: ArrayLike, theta_b: ArrayLike, theta_ab: ArrayLike, query_norm: ArrayLike
    ) -> Float:
        """Var(w_a - w_b), the noise that comparing two keys by one table has to overcome (S14, S15)."""
        apart = self.variance(theta_a, query_norm) + self.variance(theta_b, query_norm)
        return np.maximum(apart - 2 * self.covariance(theta_a, theta_b, theta_ab, query_norm), 0.0)
