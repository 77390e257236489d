"""Means of independent terms: the inequalities of Hoeffding and Bernstein, for numbers and for vectors (S8).

Assumptions of all six: `count` iid centred terms. Hoeffding: numbers in an interval of length 2 * radius, or vectors of
Hilbert norm at most radius. Bernstein: numbers or vectors of norm at most radius, variance = E of the squared norm. The
vector forms cost no dimension factor (Pinelis 1994): u -> cosh(lambda sqrt u) is increasing and convex, hence
E cosh(lambda |x + X|) <= cosh(lambda |x|) cosh(lambda radius), and Markov's inequality finishes.

One weight of a table (S8): Hoeffding with `collision_half_range(kernel)`; Bernstein with `kernel.variance(theta, rho)`
and radius 1. Numbers of tables are `count`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from socket_theory.core.arguments import (
    Float,
    nonnegative_number,
    positive_number,
    require_above_zero,
    require_delta,
    require_nonnegative,
    round_up,
)
from socket_theory.core.checks import require_count


def hoeffding_failure(deviation: ArrayLike, count: int, radius: ArrayLike) -> Float:
    """P(|mean| >= t) <= 2 exp(-n t^2 / (2 R^2)), capped at 1."""
    t, bound = require_nonnegative("deviation", deviation), require_above_zero("radius", radius)
    return np.asarray(np.minimum(1.0, 2 * np.exp(-require_count("count", count) * t**2 / (2 * bound**2))))


def hoeffding_radius(delta: float, count: int, radius: ArrayLike) -> Float:
    """R sqrt(2 ln(2/delta) / n), which |mean| exceeds with probability at most delta."""
    log_term = np.log(2 / require_delta(delta))
    return np.asarray(require_nonnegative("radius", radius) * np.sqrt(2 * log_term / require_count("count", count)))


def hoeffding_count(deviation: float, delta: float, radius: float) -> int:
    """The smallest n with `hoeffding_radius` <= deviation."""
    return round_up(hoeffding_terms(deviation, delta, radius), "deviation", deviation)


def hoeffding_terms(deviation: float, delta: float, radius: float) -> float:
    """The real n, possibly infinite, from which `hoeffding_radius` <= deviation: 2 ln(2/delta) (R/t)^2."""
    ratio = nonnegative_number("radius", radius) / positive_number("deviation", deviation)
    return 2 * math.log(2 / require_delta(delta)) * (ratio * ratio)


def bernstein_failure(deviation: ArrayLike, count: int, variance: ArrayLike, radius: ArrayLike) -> Float:
    """P(|mean| >= t) <= 2 exp(-n t^2 / (2 (v + R t/3))), capped at 1."""
    t, v = require_above_zero("deviation", deviation), require_nonnegative("variance", variance)
    scale = 2 * (v + require_above_zero("radius", radius) * t / 3)
    return np.asarray(np.minimum(1.0, 2 * np.exp(-require_count("count", count) * t**2 / scale)))


def bernstein_radius(delta: float, count: int, variance: ArrayLike, radius: ArrayLike) -> Float:
    """The t at which `bernstein_failure` is delta: with a = ln(2/delta)/n, R a/3 + sqrt((R a/3)^2 + 2 v a)."""
    share = np.log(2 / require_delta(delta)) / require_count("count", count)
    linear = require_nonnegative("radius", radius) * share / 3
    return np.asarray(linear + np.sqrt(linear**2 + 2 * require_nonnegative("variance", variance) * share))


def bernstein_count(deviation: float, delta: float, variance: float, radius: float) -> int:
    """The smallest n with `bernstein_radius` <= deviation."""
    return round_up(bernstein_terms(deviation, delta, variance, radius), "deviation", deviation)


def bernstein_terms(deviation: float, delta: float, variance: float, radius: float) -> float:
    """The real n, possibly infinite, from which `bernstein_radius` <= deviation: 2 ln(2/delta) (v/t^2 + R/(3t))."""
    t, v = positive_number("deviation", deviation), nonnegative_number("variance", variance)
    return 2 * math.log(2 / require_delta(delta)) * (v / t / t + nonnegative_number("radius", radius) / t / 3)
