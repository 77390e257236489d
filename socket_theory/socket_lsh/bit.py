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
from socket_theory.core.quadrature import half_normal_mean

Float = NDArray[np.float64]
_STEEPEST = 1e100  # stands for cot 0: times any node of the rule it saturates Phi
_FINEST = 1e-9  # turns this far below the scale of h move no moment by more than 1e-16
_SMALLEST_TURN = 1e-280  # below it the nodes leave float64
_PI_REMAINDER = 1.2246467991473532e-16  # pi minus its float64 value
_ROUNDING = 1e-6  # angles from arccos of rounded cosines are off by up to 1e-8


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
        missed, acute = self.gap(query_norm) + self._disagreement(theta, query_norm), _is_acute(theta)
        return np.where(acute, 1 - missed, missed)

    def excess(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """mu - 1/2, as many digits as E gain has."""
        half = self._norm_mean(lambda low, gain: gain, query_norm) / 2 - self._disagreement(theta, query_norm)
        return np.where(_is_acute(theta), half, -half)

    def second_moment(self, theta: ArrayLike, query_norm: ArrayLike) -> Float:
        """nu (S5); small values keep their digits."""
        low, square = self.gap(query_norm), self._norm_mean(lambda low, gain: low**2, query_norm)
        disagreement = self._disagreement(theta, query_norm)
        return np.where(_is_acute(theta), 1 - 2 * low + square - disagreement, square + disagreement)

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
            np.abs(_cotangent(angle)),
            norm,
        )

    def _sign_product(
        self, theta_a: ArrayLike, theta_b: ArrayLike, theta_ab: ArrayLike, query_norm: ArrayLike
    ) -> Float:
        """E gain^2 s_a s_b: the orthant probabilities given |g| are Owen's T functions of |g| cot theta."""
        from scipy.special import owens_t

        angles = [require_angle(f"theta_{name}", t) for name, t in (("a", theta_a), ("b", theta_b), ("ab", theta_ab))]
        norm = require_norm(query_norm)
        _require_triangle(*angles)
        cot_a, cot_b = _cotangent(angles[0]), _cotangent(angles[1])
        slope_a, slope_b = _owen_slopes(*angles)

        def integrand(g: Float, a: Float, b: Float, at_a: Float, at_b: Float, rho: Float) -> Float:
            lost = owens_t(g * a, at_a) + owens_t(g * b, at_b)
            same = np.where((a < 0) == (b < 0), 1.0, -1.0)
            return np.asarray((same - 4 * lost) * self._low_and_gain(g, rho)[1] ** 2)

        scale = self._scale(norm, *angles[:2])
        return half_normal_mean(integrand, scale, cot_a, cot_b, slope_a, slope_b, norm)


def _require_triangle(theta_a: Float, theta_b: Float, theta_ab: Float) -> None:
    total = theta_a + theta_b
    widest = np.minimum(total, 2 * np.pi - total)
    if not ((theta_ab > np.abs(theta_a - theta_b) - _ROUNDING) & (theta_ab < widest + _ROUNDING)).all():
        raise ValueError(
            "theta_a, theta_b and theta_ab are not the angles of three vectors: pass the angle between the two keys, "
            "from |theta_a - theta_b| to min(theta_a + theta_b, 2 pi - theta_a - theta_b)."
        )


def _is_acute(theta: ArrayLike) -> NDArray[np.bool_]:
    return np.asarray(theta) <= np.pi / 2


def _cotangent(theta: Float) -> Float:
    folded = np.minimum(theta, np.pi - theta)
    cotangent = np.cos(folded) / _sine(theta)
    return np.where(_is_acute(theta), cotangent, -cotangent)


def _sine(theta: Float) -> Float:
    return np.maximum(np.sin(np.minimum(theta, np.pi - theta)), 1 / _STEEPEST)


def _owen_slopes(theta_a: Float, theta_b: Float, theta_ab: Float) -> tuple[Float, Float]:
    """The second arguments of Owen's T, (cot b - r cot a) / (cot a sqrt(1 - r^2)) and its mirror image.

    r = cos psi, where psi is the angle at the query of the spherical triangle of query and keys, taken from its half
    by half-angle sines so that nearly equal keys keep their digits.
    """
    half = (theta_a + theta_b + theta_ab) / 2
    away = np.sin(np.maximum(half - theta_a, 0)) * np.sin(np.maximum(half - theta_b, 0))
    toward = np.maximum(np.sin(half), 0) * np.sin(np.maximum(half - theta_ab, 0))
    psi = 2 * np.arctan2(np.sqrt(away), np.sqrt(toward))
    near = psi <= np.pi / 2
    turn = np.where(near, np.tan(np.minimum(psi, np.pi / 2) / 2), -np.tan((np.pi - np.maximum(psi, np.pi / 2)) / 2))
    slopes = []
    for own, other in ((theta_a, theta_b), (theta_b, theta_a)):
        beyond = (own - np.pi / 2) + (other - np.pi / 2) - _PI_REMAINDER  # own + other - pi: cos(own) may be as small
        with np.errstate(divide="ignore", invalid="ignore"):
            sine = np.where(near, np.sin(own - other), -np.sin(beyond))
            shift = sine / (np.cos(own) * _sine(other) * np.sin(psi))
        slopes.append(turn + np.nan_to_num(shift, nan=0.0, posinf=np.inf, neginf=-np.inf))
    return slopes[0], slopes[1]
