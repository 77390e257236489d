"""Exact laws of soft collisions: means, second moments and pair moments over the random planes (S3-S6, S15).

For one plane, z = <w, q> = rho g with g standard normal, and given |g| the sign of <w, k> agrees with the sign of z with
probability Phi(|g| cot theta). The bit is then sigma(2|h|/tau) = low + gain, else low = sigma(-2|h|/tau), where
gain = tanh(|h|/tau). Every law here is an expectation over |g| of products of low, gain and such probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from socket_theory.checks import require_count, require_positive
from socket_theory.hashing import QueryMap, apply_query_map, query_map_bound
from socket_theory.quadrature import half_normal_mean

Float = NDArray[np.float64]
_STEEPEST = 1e100  # cot theta at theta = 0; times any node it saturates Phi
_FINEST = 1e-9  # an angle this far below the scale of h moves a moment by less than 1e-16


def hard_kernel(theta: ArrayLike, num_planes: int) -> Float:
    """kappa_0 = (1 - theta/pi)^P, the probability that P random planes do not separate two vectors (S3).

    Shapes: theta [...] in [0, pi] -> [...].
    """
    return np.asarray((1 - _angle("theta", theta) / np.pi) ** require_count("num_planes", num_planes))


@dataclass(frozen=True)
class SoftKernel:
    """The law of a soft collision w = prod_p sigma(2 h_p s_p / tau) over one table of Gaussian planes.

    Methods broadcast their arguments, angles in [0, pi] and query norms rho >= 0, and return float64. Moments of a bit
    are exact to 1e-12, small means to as many digits. A zero query has h = 0, so each of its bits is 1/2.

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
        return self._norm_mean(lambda low, gain: low, query_norm)

    def bit_mean(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """mu = E sigma(2 h s / tau), the mean of one bit (S4)."""
        folded, acute = _fold(theta)
        missed = self.temperature_gap(query_norm) + self._disagreement(folded, query_norm)
        return np.where(acute, 1 - missed, missed)

    def bit_second_moment(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """nu = E sigma(2 h s / tau)^2, the second moment of one bit (S5)."""
        folded, acute = _fold(theta)
        low = self.temperature_gap(query_norm)
        low_squared = self._norm_mean(lambda low, gain: low**2, query_norm)
        disagreement = self._disagreement(folded, query_norm)
        return np.where(acute, 1 - 2 * low + low_squared - disagreement, low_squared + disagreement)

    def bit_variance(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """nu - mu^2, by the one of two equal forms that does not cancel (S5)."""
        folded, _ = _fold(theta)
        disagreement = self._disagreement(folded, query_norm)
        low, gain = (self._norm_mean(part, query_norm) for part in (lambda low, gain: low, lambda low, gain: gain))
        low_squared = self._norm_mean(lambda low, gain: low**2, query_norm)
        gain_squared = self._norm_mean(lambda low, gain: gain**2, query_norm)
        cold = low_squared + disagreement - (low + disagreement) ** 2
        hot = (gain_squared - (gain - 2 * disagreement) ** 2) / 4
        return np.maximum(np.where(low < 0.25, cold, hot), 0.0)

    def mean(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """kappa_tau = E w = mu^P, the soft angular kernel (S4)."""
        return np.asarray(self.bit_mean(theta, query_norm) ** self.num_planes)

    def second_moment(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """E w^2 = nu^P (S5)."""
        return np.asarray(self.bit_second_moment(theta, query_norm) ** self.num_planes)

    def variance(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """Var w = nu^P - mu^2P (S5)."""
        return self._power_step(self.bit_mean(theta, query_norm) ** 2, self.bit_variance(theta, query_norm))

    def mean_difference(self, theta_a: ArrayLike, theta_b: ArrayLike, query_norm: ArrayLike) -> Float:
        """E[w_a - w_b], also where the means nearly agree, as at large tau."""
        step = self._excess(theta_a, query_norm) - self._excess(theta_b, query_norm)
        return self._power_step(self.bit_mean(theta_b, query_norm), step)

    def bit_pair_moment(
        self, theta_a: ArrayLike, theta_b: ArrayLike, theta_ab: ArrayLike, query_norm: ArrayLike
    ) -> Float:
        """E of the product of one bit of two keys at angles theta_a, theta_b to the query and theta_ab apart (S15)."""
        excess = self._excess(theta_a, query_norm) + self._excess(theta_b, query_norm)
        sign_product = self._sign_product(theta_a, theta_b, theta_ab, query_norm)
        return np.maximum(0.25 + excess / 2 + sign_product / 4, 0.0)

    def pair_moment(self, theta_a: ArrayLike, theta_b: ArrayLike, theta_ab: ArrayLike, query_norm: ArrayLike) -> Float:
        """E[w_a w_b], both keys in one table (S15)."""
        return np.asarray(self.bit_pair_moment(theta_a, theta_b, theta_ab, query_norm) ** self.num_planes)

    def covariance(self, theta_a: ArrayLike, theta_b: ArrayLike, theta_ab: ArrayLike, query_norm: ArrayLike) -> Float:
        """Cov(w_a, w_b) = E[w_a w_b] - kappa_a kappa_b, also where it is small, as at large tau (S15)."""
        sign_product = self._sign_product(theta_a, theta_b, theta_ab, query_norm)
        step = sign_product / 4 - self._excess(theta_a, query_norm) * self._excess(theta_b, query_norm)
        return self._power_step(self.bit_mean(theta_a, query_norm) * self.bit_mean(theta_b, query_norm), step)

    def difference_variance(
        self, theta_a: ArrayLike, theta_b: ArrayLike, theta_ab: ArrayLike, query_norm: ArrayLike
    ) -> Float:
        """Var(w_a - w_b), what comparing two keys by one table has to overcome (S14, S15)."""
        apart = self.variance(theta_a, query_norm) + self.variance(theta_b, query_norm)
        return np.maximum(apart - 2 * self.covariance(theta_a, theta_b, theta_ab, query_norm), 0.0)

    def _power_step(self, base: Float, step: Float) -> Float:
        """(base + step)^P - base^P without cancellation."""
        powers = range(self.num_planes)
        return np.asarray(step * sum((base + step) ** j * base ** (self.num_planes - 1 - j) for j in powers))

    def _low_and_gain(self, nodes: Float, query_norm: Float) -> tuple[Float, Float]:
        from scipy.special import expit

        slope = apply_query_map(nodes * query_norm, self.query_map, self.head_dim) / self.temperature
        return expit(-2 * slope), np.tanh(slope)

    def _norm_mean(self, part: Callable[[Float, Float], Float], query_norm: ArrayLike) -> Float:
        """E part(low, gain)."""
        rho = _norm(query_norm)
        return half_normal_mean(lambda g, norm: part(*self._low_and_gain(g, norm)), self._scale(rho), rho)

    def _excess(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """mu - 1/2, to the digits of E gain."""
        folded, acute = _fold(theta)
        gain = self._norm_mean(lambda low, gain: gain, query_norm)
        return np.where(acute, 1, -1) * (gain / 2 - self._disagreement(folded, query_norm))

    def _disagreement(self, theta: Float, query_norm: ArrayLike) -> Float:
        """E gain [signs disagree], theta at most pi/2."""
        from scipy.special import ndtr

        rho = _norm(query_norm)
        return half_normal_mean(
            lambda g, slope, norm: ndtr(-g * slope) * self._low_and_gain(g, norm)[1],
            self._scale(rho, theta),
            _cotangent(theta),
            rho,
        )

    def _sign_product(
        self, theta_a: ArrayLike, theta_b: ArrayLike, theta_ab: ArrayLike, query_norm: ArrayLike
    ) -> Float: ...
