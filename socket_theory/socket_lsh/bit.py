"""The law of one bit of a soft collision, sigma(2 h s / tau), over its Gaussian plane (S4-S6, S15 with P = 1).

z = <w, q> = rho g with g standard normal; given |g|, the sign of <w, k> agrees with that of z with probability
Phi(|g| cot theta). The bit is low + gain where they agree and low where not, with low = sigma(-2|h|/tau) and
gain = tanh(|h|/tau) = 1 - 2 low, so every law is an expectation over |g| of products of low, gain and probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from socket_theory.core.checks import require_angle, require_numbers
from socket_theory.core.hashing import QueryMap, apply_query_map
from socket_theory.core.quadrature import half_normal_mean, half_normal_rule
from socket_theory.socket_lsh.orthants import cotangent, is_acute, owen_slopes, require_triangle, sign_correlation

Float = NDArray[np.float64]
_FINEST = 1e-9  # turns this far below the scale of h move no moment by more than 1e-16
_SMALLEST_TURN = 1e-280  # below it the nodes leave float64


def require_norm(query_norm: ArrayLike) -> Float:
    """`query_norm` as float64, or ValueError if an entry is negative, infinite or NaN."""
    norm = require_numbers("query_norm", query_norm)
    if not (np.isfinite(norm) & (norm >= 0)).all():
        raise ValueError("query_norm has a negative or non-finite entry: pass the length of a finite query.")
    return norm


@dataclass(frozen=True)
class BitLaw:
    """Moments of one bit. Methods broadcast angles in [0, pi] and query norms rho >= 0, and return float64."""

    temperature: float
    query_map: QueryMap
    head_dim: int

    def gap(self, query_norm: ArrayLike) -> Float:
        """eps_tau(rho) = E low (S6)."""
        return self._norm_mean(lambda low, gain: low, query_norm)

    def mean(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """mu (S4); small values keep their digits, so their powers do."""
        missed, acute = self.gap(query_norm) + self._disagreement(theta, query_norm), is_acute(theta)
        return np.where(acute, 1 - missed, missed)

    def excess(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """mu - 1/2, as many digits as E gain has."""
        half = self._norm_mean(lambda low, gain: gain, query_norm) / 2 - self._disagreement(theta, query_norm)
        return np.where(is_acute(theta), half, -half)

    def second_moment(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """nu (S5); small values keep their digits."""
        low, square = self.gap(query_norm), self._norm_mean(lambda low, gain: low**2, query_norm)
        disagreement = self._disagreement(theta, query_norm)
        return np.where(is_acute(theta), 1 - 2 * low + square - disagreement, square + disagreement)

    def variance(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """nu - mu^2, by the one of two equal forms that does not cancel (S5)."""
        disagreement, low = self._disagreement(theta, query_norm), self.gap(query_norm)
        cold = self._norm_mean(lambda low, gain: low**2, query_norm) + disagreement - (low + disagreement) ** 2
        square = self._norm_mean(lambda low, gain: gain**2, query_norm)
        hot = square / 4 - (self._norm_mean(lambda low, gain: gain, query_norm) / 2 - disagreement) ** 2
        return np.maximum(np.where(low < 0.25, cold, hot), 0.0)

    def covariance(self, theta_a: ArrayLike, theta_b: ArrayLike, theta_ab: ArrayLike, query_norm: ArrayLike) -> Float:
        """Covariance of the bits of two keys, theta_ab apart, on one plane (S15)."""
        product = self._sign_product(theta_a, theta_b, theta_ab, query_norm)
        return np.asarray(product / 4 - self.excess(theta_a, query_norm) * self.excess(theta_b, query_norm))

    def pair_powers(
        self, theta_a: float, theta_b: float, theta_ab: float, query_norm: float, orders: int, scale: float
    ) -> Float:
        """E[(b_a/scale)^i (b_b/scale)^j] of the bits of two keys on one plane, for i and j below `orders`.

        Given |g| the two bits take four pairs of values. -> [orders, orders], row i and column j.
        """
        from scipy.special import ndtr

        given = zip(("theta_a", "theta_b", "theta_ab"), (theta_a, theta_b, theta_ab), strict=True)
        angles = [require_angle(name, [angle]) for name, angle in given]
        norm = require_norm(query_norm)
        require_triangle(*angles)
        g, weights = half_normal_rule(self._scale(norm, *angles[:2]))
        low, gain = self._low_and_gain(g, norm)
        cots = cotangent(angles[0]), cotangent(angles[1])
        near_a, near_b = (ndtr(g * cot) for cot in cots)
        both = (sign_correlation(g, *cots, *owen_slopes(*angles)) + 2 * near_a + 2 * near_b - 1) / 4
        high, low = (np.power.outer(side / scale, np.arange(orders)).T for side in (low + gain, low))
        cases = ((both, high, high), (near_a - both, high, low), (near_b - both, low, high))
        rest = (1 - near_a - near_b + both, low, low)
        return np.asarray(sum((a * (weights * np.maximum(p, 0))) @ b.T for p, a, b in (*cases, rest)))

    def _low_and_gain(self, nodes: Float, query_norm: Float) -> tuple[Float, Float]:
        from scipy.special import expit

        with np.errstate(over="ignore"):
            slope = apply_query_map(nodes * query_norm, self.query_map, self.head_dim) / self.temperature
        return expit(-2 * slope), np.tanh(slope)

    def _scale(self, query_norm: Float, *thetas: Float) -> float:
        """The smallest |g|, at most 1, where an integrand turns."""
        height = np.sqrt(self.head_dim) if self.query_map == "tanh_scaled" else 1.0
        reach = self.temperature if self.query_map == "linear" else min(self.temperature * height, 1.0)
        longest = float(np.max(query_norm, initial=0.0))
        turn = reach / max(longest, reach)
        if turn < _SMALLEST_TURN:
            raise ValueError(
                f"temperature={self.temperature!r} was given for query_norm={longest!r}: "
                "pass a temperature of at least 1e-280 times the norm."
            )
        angles = (float(np.min(np.abs(np.sin(t)), initial=1.0)) for t in thetas)
        return min([turn, *(max(angle, _FINEST * turn) for angle in angles)])

    def _norm_mean(self, part: Callable[[Float, Float], Float], query_norm: ArrayLike) -> Float:
        """E part(low, gain)."""
        norm = require_norm(query_norm)
        return half_normal_mean(lambda g, rho: part(*self._low_and_gain(g, rho)), self._scale(norm), norm)

    def _disagreement(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """E gain [signs disagree], of the angle or its supplement, whichever is at most pi/2."""
        from scipy.special import ndtr

        angle, norm = require_angle("theta", theta), require_norm(query_norm)
        return half_normal_mean(
            lambda g, slope, rho: ndtr(-g * slope) * self._low_and_gain(g, rho)[1],
            self._scale(norm, angle),
            np.abs(cotangent(angle)),
            norm,
        )

    def _sign_product(
        self, theta_a: ArrayLike, theta_b: ArrayLike, theta_ab: ArrayLike, query_norm: ArrayLike
    ) -> Float:
        """E gain^2 s_a s_b: the orthant probabilities given |g| are Owen's T functions of |g| cot theta."""
        angles = [require_angle(f"theta_{name}", t) for name, t in (("a", theta_a), ("b", theta_b), ("ab", theta_ab))]
        norm = require_norm(query_norm)
        require_triangle(*angles)
        cot_a, cot_b = cotangent(angles[0]), cotangent(angles[1])
        slope_a, slope_b = owen_slopes(*angles)

        def integrand(g: Float, a: Float, b: Float, at_a: Float, at_b: Float, rho: Float) -> Float:
            return sign_correlation(g, a, b, at_a, at_b) * self._low_and_gain(g, rho)[1] ** 2

        scale = self._scale(norm, *angles[:2])
        return half_normal_mean(integrand, scale, cot_a, cot_b, slope_a, slope_b, norm)
