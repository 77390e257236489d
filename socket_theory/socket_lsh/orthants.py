"""Angles of a query and two keys, and the orthant probabilities of their signs on one plane given |g| (S15).

Given |g|, the sign of <w, k> agrees with that of <w, q> where a standard normal exceeds -|g| cot theta. For two keys
both are decided by normals whose correlation is the cosine of the angle at the query.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
_STEEPEST = 1e100  # stands for cot 0: times any node of the rule it saturates Phi
_PI_REMAINDER = 1.2246467991473532e-16  # pi minus its float64 value
_ROUNDING = 1e-6  # angles from arccos of rounded cosines are off by up to 1e-8


def sign_correlation(g: Float, cot_a: Float, cot_b: Float, slope_a: Float, slope_b: Float) -> Float:
    """E[s_a s_b | |g|], where s is 1 if a key is on the query's side and -1 if not, by Owen's T. Broadcasts.

    cot_a and cot_b are cotangents of the angles to the query, slope_a and slope_b come from `owen_slopes`.
    """
    from scipy.special import owens_t

    same = np.where((cot_a < 0) == (cot_b < 0), 1.0, -1.0)
    return np.asarray(same - 4 * (owens_t(g * cot_a, slope_a) + owens_t(g * cot_b, slope_b)))


def require_triangle(theta_a: Float, theta_b: Float, theta_ab: Float) -> None:
    """ValueError unless the three angles are those of three vectors, up to rounding."""
    total = theta_a + theta_b
    widest = np.minimum(total, 2 * np.pi - total)
    if not ((theta_ab > np.abs(theta_a - theta_b) - _ROUNDING) & (theta_ab < widest + _ROUNDING)).all():
        raise ValueError(
            "theta_a, theta_b and theta_ab are not the angles of three vectors: pass the angle between the two keys, "
            "from |theta_a - theta_b| to min(theta_a + theta_b, 2 pi - theta_a - theta_b)."
        )


def is_acute(theta: ArrayLike) -> NDArray[np.bool_]:
    """Whether an angle is at most pi/2."""
    return np.asarray(theta) <= np.pi / 2


def cotangent(theta: Float) -> Float:
    """cot theta in [0, pi], finite at both ends."""
    folded = np.minimum(theta, np.pi - theta)
    size = np.cos(folded) / _sine(theta)
    return np.where(is_acute(theta), size, -size)


def _sine(theta: Float) -> Float:
    return np.maximum(np.sin(np.minimum(theta, np.pi - theta)), 1 / _STEEPEST)


def owen_slopes(theta_a: Float, theta_b: Float, theta_ab: Float) -> tuple[Float, Float]:
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
