"""How many of the true top-k keys finite tables miss, and the tables that a recall needs (S14).

Assumptions: iid Gaussian planes, scores w-bar without value weights. The true top-k are the keys of largest kappa, that
is, of smallest angle. Ties of scores may be broken in any way.

Fix a threshold t. A top key is missed, whatever the k-th largest score is, only if it scores at most t, or because a
key outside the top scores at least t. Both have one-sided bounds for a single key: with gap g = |kappa - t|,

    p(g) = min(exp(-L g^2 / (2 (Var w + R g/3))), Var w / (Var w + L g^2)),

R = kappa - sigma_- below and sigma_+ - kappa above (Bernstein and Cantelli). All results hold for every t, and the best
of a fixed grid is taken. Proved at every L; what to expect is `socket_lsh.bounds.recall_estimate`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from socket_theory.core.arguments import Float, nonnegative_number, require_delta, require_nonnegative
from socket_theory.core.checks import require_count

_GRID = 63  # odd: the middle of a gap is in the grid
_MOST_TABLES = 10**18


@dataclass(frozen=True, eq=False)
class KeyScores:
    """One table's scores of N keys: `means` kappa and `variances` [N], and their range (sigma_-, sigma_+).

    Raises
    ------
    ValueError
        If the shapes differ, a number is negative or not finite, or a mean lies outside the range.
    """

    means: Float
    variances: Float
    weight_range: tuple[float, float]

    def __post_init__(self) -> None:
        means, variances = require_nonnegative("means", self.means), require_nonnegative("variances", self.variances)
        if means.ndim != 1 or means.shape != variances.shape or not len(means):
            raise ValueError(
                f"means has shape {means.shape} and variances {variances.shape}: pass [N], a number for each key."
            )
        low, high = self.weight_range
        if not 0 <= low <= means.min() <= means.max() <= high:
            raise ValueError(f"weight_range={self.weight_range!r} does not hold all means: pass (sigma_-, sigma_+).")
        order = np.argsort(-means, kind="stable")
        object.__setattr__(self, "means", means[order])
        object.__setattr__(self, "variances", variances[order])

    def expected_recall_bound(self, k: int, num_tables: int) -> float:
        """A lower bound on the expected share of the true top-k among the k largest scores, at least 0."""
        below, above = self._misses(self._thresholds(self._inner(k), k), k, require_count("num_tables", num_tables))
        return max(0.0, 1 - float(np.min(below.sum(axis=1) + above)) / k)

    def recall_failure(self, k: int, recall: float, num_tables: int) -> float:
        """An upper bound, at most 1, on the probability that fewer than m = ceil(recall k) of the true top-k stay."""
        wanted = self._wanted(k, recall)
        return self._failure(self._thresholds(k, wanted), k, wanted, require_count("num_tables", num_tables))

    def recall_tables(self, k: int, recall: float, delta: float) -> int:
        """The smallest L with `recall_failure` <= delta.

        Raises
        ------
        ValueError
            If k is not below N, recall not in (0, 1], the m-th and (k+1)-th largest means are equal, or more than 1e18
            tables would be needed.
        """
        wanted, goal = self._wanted(k, recall), require_delta(delta)
        if self.means[wanted - 1] == self.means[k]:
            raise ValueError(
                f"keys {wanted} and {k + 1} in order have the same kernel value: pass a smaller recall or k."
            )
        grid = self._thresholds(k, wanted)
        low, high = 0, 1
        while self._failure(grid, k, wanted, high) > goal:
            low, high = high, 2 * high
            if high > _MOST_TABLES:
                raise ValueError(f"recall={recall!r} needs more than 1e18 tables: pass a smaller recall or k.")
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._failure(grid, k, wanted, middle) <= goal else (middle, high)
        return high

    def _inner(self, k: int) -> int:
        if require_count("k", k) >= len(self.means):
            raise ValueError(f"k={k} was given for {len(self.means)} keys: pass a smaller k, or keep every key.")
        return k

    def _wanted(self, k: int, recall: float) -> int:
        self._inner(k)
        if not 0 < nonnegative_number("recall", recall) <= 1:
            raise ValueError(f"recall={recall!r} was given: pass a share in (0, 1].")
        return math.ceil(recall * k * (1 - 1e-12))

    def _thresholds(self, k: int, wanted: int) -> Float:
        """Between the m-th and (k+1)-th mean, between the k-th and (k+1)-th, and around both. -> [T]"""
        means = self.means
        ends = ((k, wanted - 1), (k, k - 1), (min(2 * k, len(means)) - 1, 0))
        return np.concatenate([np.linspace(means[low], means[high], _GRID + 2)[1:-1] for low, high in ends])

    def _failure(self, grid: Float, k: int, wanted: int, num_tables: int) -> float:
        """The least, over thresholds and j in m..k, of sum_{i<=j} p_i/(j - m + 1) + sum_{i>k} p_i/(k - m + 1)."""
        below, above = self._misses(grid, k, num_tables)
        lost = np.cumsum(below, axis=1)[:, wanted - 1 :] / np.arange(1, k - wanted + 2)
        return min(1.0, float(np.min(lost.min(axis=1) + above / (k - wanted + 1))))

    def _misses(self, grid: Float, k: int, num_tables: int) -> tuple[Float, Float]:
        """Bounds on P(w-bar_i <= t) of the top keys [T, k], and their sum [T] on P(w-bar_i >= t) of the others."""
        low, high = self.weight_range
        top, rest = self.means[:k], self.means[k:]
        below = _tail(top - grid[:, None], self.variances[:k], top - low, num_tables)
        above = np.stack([_tail(t - rest, self.variances[k:], high - rest, num_tables).sum() for t in grid])
        return below, above


def _tail(gap: Float, variance: Float, reach: Float, count: int) -> Float:
    """min(Bernstein, Cantelli) for a mean to be `gap` or more off to one side; 1 where the gap is not above 0."""
    g = np.maximum(gap, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        bernstein = np.exp(-count * g**2 / (2 * (variance + reach * g / 3)))
        cantelli = variance / (variance + count * g**2)
    return np.where(gap > 0, np.minimum(bernstein, cantelli), 1.0)
