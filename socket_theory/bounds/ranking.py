"""How often L tables order two keys wrongly, and the tables that top-k recall needs (S14).

Assumptions: iid Gaussian planes, scores w-bar without value weights, and a true gap Delta = kappa_a - kappa_b > 0. Each
bound is on P(w-bar_a <= w-bar_b), one-sided Hoeffding or Bernstein for the mean of w_a - w_b.
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
    """exp(-L Delta^2 / 2), since w_a - w_b lies in [-1, 1]."""
    return misrank_hoeffding_range(gap, num_tables, 1.0)


def misrank_hoeffding_range(gap: ArrayLike, num_tables: int, weight_span: float) -> Float:
    """exp(-L Delta^2 / (2 (sigma_+ - sigma_-)^2)) with weight_span = sigma_+ - sigma_-, sharper at large tau."""
    ratio = require_above_zero("gap", gap) / require_above_zero("weight_span", weight_span)
    return np.exp(-require_count("num_tables", num_tables) * ratio**2 / 2)


def misrank_bernstein(gap: ArrayLike, num_tables: int, difference_variance: ArrayLike) -> Float:
    """exp(-L Delta^2 / (2 (Var(w_a - w_b) + (1 + Delta) Delta/3))); see `SoftKernel.difference_variance`."""
    delta = require_above_zero("gap", gap)
    scale = 2 * (require_nonnegative("difference_variance", difference_variance) + (1 + delta) * delta / 3)
    return np.exp(-require_count("num_tables", num_tables) * delta**2 / scale)


def misrank_tables(gap: float, failure: float) -> int:
    """The smallest L with `misrank_hoeffding` <= failure."""
    return misrank_hoeffding_range_tables(gap, failure, 1.0)


def misrank_hoeffding_range_tables(gap: float, failure: float, weight_span: float) -> int:
    """The smallest L with `misrank_hoeffding_range` <= failure: 2 (weight_span / Delta)^2 ln(1/failure)."""
    ratio = positive_number("weight_span", weight_span) / positive_number("gap", gap)
    return round_up(2 * math.log(1 / require_delta(failure, "failure")) * (ratio * ratio), "gap", gap)


def misrank_bernstein_tables(gap: float, failure: float, difference_variance: float) -> int:
    """The smallest L with `misrank_bernstein` <= failure: 2 (Var/Delta^2 + (1 + Delta)/(3 Delta)) ln(1/failure)."""
    delta, variance = positive_number("gap", gap), nonnegative_number("difference_variance", difference_variance)
    terms = variance / delta / delta + (1 + delta) / delta / 3
    return round_up(2 * math.log(1 / require_delta(failure, "failure")) * terms, "gap", gap)


def recall_tables(kernel_means: Float, k: int, recall: float, delta: float) -> int:
    """(2 / Delta^2) ln(m (N - k) / delta): tables for a top-k recall of at least `recall`, with probability 1 - delta.

    m = ceil(recall k) and Delta = kappa_(m) - kappa_(k+1) in descending order: with these tables none of the best m
    keys ranks below any of the worst N - k. Shapes: kernel_means [N], the kappa of every key.

    Raises
    ------
    ValueError
        If k is not below N, recall not in (0, 1], or Delta is 0.
    """
    count = require_count("k", k)
    if count >= len(kernel_means):
        raise ValueError(f"k={k} was given for {len(kernel_means)} keys: pass a smaller k, or keep every key.")
    if not 0 < nonnegative_number("recall", recall) <= 1:
        raise ValueError(f"recall={recall!r} was given: pass a share in (0, 1].")
    order = np.sort(require_nonnegative("kernel_means", kernel_means))[::-1]
    kept = math.ceil(recall * count * (1 - 1e-12))
    gap = float(order[kept - 1] - order[count])
    if gap == 0:
        raise ValueError(
            f"keys {kept} and {count + 1} in order have the same kernel value: pass a smaller recall or k."
        )
    pairs = kept * (len(order) - count)
    return round_up(2 * math.log(pairs / require_delta(delta)) / gap / gap, "the gap of kernel_means", gap)
