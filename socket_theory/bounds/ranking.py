"""How often L tables order two keys wrongly, by Hoeffding's and Bernstein's inequalities (S14).

Assumptions: iid Gaussian planes, scores w-bar without value weights, and a true gap Delta = kappa_a - kappa_b > 0. Each
bound is on P(w-bar_a <= w-bar_b), one-sided, for the mean of w_a - w_b. `weight_span` is sigma_+ - sigma_- of
`SoftKernel.weight_range()`. `misrank_hoeffding` and `misrank_tables` are the paper's form, which takes 1 for it. Near
the truth at any kernel is `socket_lsh.bounds.pair_difference`, from the exact law of a pair.
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


def misrank_hoeffding(gap: ArrayLike, num_tables: int) -> Float:
    """exp(-L Delta^2 / 2), the paper's form: w_a - w_b lies in [-1, 1]."""
    return misrank_hoeffding_range(gap, num_tables, 1.0)


def misrank_hoeffding_range(gap: ArrayLike, num_tables: int, weight_span: float) -> Float:
    """exp(-L Delta^2 / (2 (sigma_+ - sigma_-)^2)) with weight_span = sigma_+ - sigma_-, sharper at large tau."""
    ratio = require_above_zero("gap", gap) / require_above_zero("weight_span", weight_span)
    return np.exp(-require_count("num_tables", num_tables) * ratio**2 / 2)


def misrank_bernstein(gap: ArrayLike, num_tables: int, difference_variance: ArrayLike, weight_span: float) -> Float:
    """exp(-L Delta^2 / (2 (Var(w_a - w_b) + R Delta/3))), R = weight_span + Delta.

    R is the largest value of Delta - (w_a - w_b). `SoftKernel.difference_variance` is exact.
    """
    delta, span = require_above_zero("gap", gap), require_above_zero("weight_span", weight_span)
    scale = 2 * (require_nonnegative("difference_variance", difference_variance) + (span + delta) * delta / 3)
    return np.exp(-require_count("num_tables", num_tables) * delta**2 / scale)


def misrank_tables(gap: float, failure: float) -> int:
    """The smallest L with `misrank_hoeffding` <= failure."""
    return misrank_hoeffding_range_tables(gap, failure, 1.0)


def misrank_hoeffding_range_tables(gap: float, failure: float, weight_span: float) -> int:
    """The smallest L with `misrank_hoeffding_range` <= failure: 2 (weight_span / Delta)^2 ln(1/failure)."""
    ratio = positive_number("weight_span", weight_span) / positive_number("gap", gap)
    return round_up(2 * math.log(1 / require_delta(failure, "failure")) * (ratio * ratio), "gap", gap)


def misrank_bernstein_tables(gap: float, failure: float, difference_variance: float, weight_span: float) -> int:
    """The smallest L with `misrank_bernstein` <= failure: 2 (Var/Delta^2 + R/(3 Delta)) ln(1/failure)."""
    delta, variance = positive_number("gap", gap), nonnegative_number("difference_variance", difference_variance)
    terms = variance / delta / delta + (positive_number("weight_span", weight_span) + delta) / delta / 3
    return round_up(2 * math.log(1 / require_delta(failure, "failure")) * terms, "gap", gap)
