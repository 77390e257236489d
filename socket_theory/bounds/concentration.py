"""Means of independent terms: the inequalities of Hoeffding and Bernstein, and the two-point form above both (S8).

Assumption of all: `count` iid centred terms. Hoeffding: numbers in an interval of length 2 * radius, or vectors of
Hilbert norm at most radius. Bernstein: numbers or vectors of norm at most radius, variance = E of the squared norm. The
vector forms cost no dimension factor (Pinelis 1994): u -> cosh(lambda sqrt u) is increasing and convex, hence
E cosh(lambda |x + X|) <= cosh(lambda |x|) cosh(lambda radius), and Markov's inequality finishes.

The two-point form is for numbers in [-below, above] of known variance v. Of all centred laws with that variance and
that upper end, the one on `above` and -v/above has the largest E e^(lambda X), so its own exponent, a Kullback-Leibler
divergence, serves for all of them (Bennett 1962; Hoeffding 1963). Each side has its own end, and the two failures are
added. It is never above Bernstein's form with radius = max(above, below), nor above Hoeffding's with 2 * radius = above
+ below.

One weight of a table (S8) has variance `kernel.variance(theta, rho)`. It lies at most sigma_+ - kappa above its mean
and kappa - sigma_- below it, the pair that `collision_reach` gives: these are `above` and `below`, and their maximum is
Bernstein's radius. Hoeffding takes `collision_half_range(kernel)`. Numbers of tables are `count`.
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

_HALVINGS = 64  # of an interval between 0 and a radius: more than the digits of a float


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


def two_point_tail(deviation: ArrayLike, count: int, variance: ArrayLike, reach: ArrayLike) -> Float:
    """P(mean >= t) <= exp(-n K) for terms of at most `reach` = b, one side of `two_point_failure`.

    K = q ln(1 + b t/v) + (1 - q) ln(1 - t/b) with q = (v + b t)/(v + b^2), the divergence of a coin of mean q from one
    of mean v/(v + b^2). The tail is 0 for t > b, and for v = 0, where every term is 0.
    """
    t, v = require_above_zero("deviation", deviation), require_nonnegative("variance", variance)
    exponent = _two_point_exponent(t, v, require_nonnegative("reach", reach))
    return np.exp(-require_count("count", count) * exponent)


def two_point_failure(
    deviation: ArrayLike, count: int, variance: ArrayLike, above: ArrayLike, below: ArrayLike
) -> Float:
    """P(|mean| >= t) <= `two_point_tail` with reach = above, plus that with reach = below, capped at 1.

    Centred terms in [-below, above] have a variance of at most above * below; a larger one is lowered to that.
    """
    t, v = require_above_zero("deviation", deviation), _possible_variance(variance, above, below)
    return np.minimum(1.0, _two_point_failure(t, count, v, above, below))


def two_point_radius(delta: float, count: int, variance: ArrayLike, above: ArrayLike, below: ArrayLike) -> Float:
    """The smallest t, to 15 digits, from which `two_point_failure` is at most delta.

    At most max(above, below), which no mean exceeds.
    """
    v, reach = _possible_variance(variance, above, below), np.maximum(above, below)
    high = np.where(v > 0, np.minimum(bernstein_radius(delta, count, v, reach), reach), 0.0)
    low = np.zeros_like(high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = _two_point_failure(middle, count, v, above, below) <= delta
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high


def two_point_count(deviation: float, delta: float, variance: float, above: float, below: float) -> int:
    """The smallest n with `two_point_radius` <= deviation."""
    return round_up(two_point_terms(deviation, delta, variance, above, below), "deviation", deviation)


def two_point_terms(deviation: float, delta: float, variance: float, above: float, below: float) -> float:
    """The real n, possibly infinite, from which `two_point_radius` <= deviation."""
    t, ends = positive_number("deviation", deviation), [nonnegative_number("above", above)]
    ends.append(nonnegative_number("below", below))
    v = _possible_variance(nonnegative_number("variance", variance), *ends)
    slow, fast = sorted(float(_two_point_exponent(t, v, end)) for end in ends)
    share = require_delta(delta)
    if t >= max(ends):
        return 0.0
    if slow == 0:
        return math.inf
    low, high = -math.log(share) / slow, math.log(2 / share) / slow
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if math.exp(-middle * slow) + math.exp(-middle * fast) > share:
            low = middle
        else:
            high = middle
    return high


def _possible_variance(variance: ArrayLike, above: ArrayLike, below: ArrayLike) -> Float:
    """The variance, lowered to above * below, the largest one of a centred law on [-below, above]."""
    largest = require_nonnegative("above", above) * require_nonnegative("below", below)
    return np.minimum(require_nonnegative("variance", variance), largest)


def _two_point_failure(t: Float, count: int, v: Float, above: ArrayLike, below: ArrayLike) -> Float:
    number = require_count("count", count)
    return np.exp(-number * _two_point_exponent(t, v, above)) + np.exp(-number * _two_point_exponent(t, v, below))


def _two_point_exponent(deviation: ArrayLike, variance: ArrayLike, reach: ArrayLike) -> Float:
    """K of `two_point_tail`, in units of the reach."""
    t, v, b = np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in (deviation, variance, reach)))
    inside = (v > 0) & (t <= b)
    length = np.where(inside, b, 1.0)
    x, u = np.where(inside, t, 0.0) / length, np.where(inside, v, 1.0) / length / length
    kept = (1 - x) * np.log1p(-np.minimum(x, 1 - np.finfo(float).eps))
    # 1 + x/u beyond float64's numbers where u is least: its logarithm then is that of (u + x) less that of u.
    with np.errstate(over="ignore"):
        ratio = x / u
    raised = np.where(ratio < np.inf, np.log1p(ratio), np.log(u + x) - np.log(u))
    return np.where(inside, ((u + x) * raised + kept) / (1 + u), np.inf)
