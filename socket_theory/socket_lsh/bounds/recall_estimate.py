"""The recall to expect of L tables: an estimate from exact means and covariances, not a bound (S14).

Expected recall is the mean over the true top-k of the probability of being kept, an identity. Two steps are plug-in:

- A score is taken for normal with its exact mean and variance. Weights are skewed to the right,
  which makes the estimate too high: much below about 20 tables, and still by .02 to .06 of recall where the skewness of
  a weight is large, as it is with the documented query map. The Berry-Esseen error of one score falls as 1/sqrt L.
- The k-th largest score is taken for t + sum_j pi_j (w-bar_j - kappa_j): t solves sum_i P(w-bar_i > t) = k, and pi_j
  is key j's share of the probability density at t, its first-order effect on the threshold. So noise that all keys
  near the threshold share, as the keys of one text do, costs no recall.

Covariances of the weights are exact (S15), on representative keys: bins of the keys in order of angle, fine near k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.angular import angles
from socket_theory.core.arguments import Float, nonnegative_number
from socket_theory.core.attention import check_arrays
from socket_theory.core.checks import require_count
from socket_theory.socket_lsh.bounds.residual_moments import weight_covariance
from socket_theory.socket_lsh.law import SoftKernel

_BINS = 96  # of the top, and of the others
_PASSES = 8
_WIDEST = 40.0  # standard deviations around the means in which the threshold lies
_MOST_TABLES = 10**12


@dataclass(frozen=True, eq=False)
class RecallEstimate:
    """Representative keys of a query's N keys: `sizes` [M] of their bins, `means` [M], `covariance` [M, M] of weights.

    The bins of the true top-k come first; their sizes add up to k.
    """

    k: int
    sizes: NDArray[np.int64]
    means: Float
    covariance: Float

    @classmethod
    def of(cls, kernel: SoftKernel, query: NDArray[Any], keys: NDArray[Any], k: int) -> RecallEstimate:
        """For a query [D] and keys [N, D] as they are hashed: pass k_i - c where a method centres its keys.

        The true top-k are the k keys of smallest angle to the query.

        Raises
        ------
        ValueError
            If k is not below N, or the head_dim of the kernel is not D.
        """
        check_arrays(query=query, keys=keys)
        if query.shape != (kernel.head_dim,) or keys.ndim != 2:
            raise ValueError(
                f"query has shape {query.shape} and keys {keys.shape}: pass [{kernel.head_dim}] and [N, "
                f"{kernel.head_dim}], the head_dim of the kernel."
            )
        count = len(keys)
        if require_count("k", k) >= count:
            raise ValueError(f"k={k} was given for {count} keys: pass a smaller k, or keep every key.")
        theta, norm = angles(query, keys), float(np.linalg.norm(query.astype(np.float64)))
        edges = _bin_edges(k, count)
        chosen = np.argsort(theta, kind="stable")[(edges[:-1] + edges[1:] - 1) // 2]
        between = np.stack([angles(keys[i], keys[chosen]) for i in chosen])
        covariance = weight_covariance(kernel, theta[chosen], between, norm)
        return cls(k, np.diff(edges), kernel.mean(theta[chosen], norm), covariance)

    def expected_recall(self, num_tables: int) -> float:
        """The expected share of the true top-k among the k largest scores of `num_tables` tables."""
        return self._recall(float(require_count("num_tables", num_tables)))

    def tables(self, recall: float) -> int:
        """The smallest L with `expected_recall` >= recall.

        Raises
        ------
        ValueError
            If recall is not in (0, 1), or more than 1e12 tables would be needed, as where keys tie.
        """
        if not 0 < nonnegative_number("recall", recall) < 1:
            raise ValueError(f"recall={recall!r} was given: pass an expected share in (0, 1).")
        low, high = 0, 1
        while self._recall(high) < recall:
            low, high = high, 2 * high
            if high > _MOST_TABLES:
                raise ValueError(f"recall={recall!r} needs more than 1e12 tables: pass a smaller recall.")
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._recall(middle) >= recall else (middle, high)
        return high

    def _recall(self, num_tables: float) -> float:
        from scipy.special import ndtr

        if np.ptp(self.means) <= 4 * np.finfo(np.float64).eps * self.means.max():  # by chance, as all keys tie
            return float(self.k / self.sizes.sum())
        noise = np.diag(self.covariance)
        for _ in range(_PASSES):
            spread = np.sqrt(np.maximum(noise, np.finfo(float).tiny) / num_tables)
            threshold = self._threshold(spread)
            share = self.sizes * np.exp(-(((self.means - threshold) / spread) ** 2) / 2) / spread
            if not share.sum() > 0:
                break
            share /= share.sum()
            moved = self.covariance @ share
            noise = np.diag(self.covariance) - 2 * moved + share @ moved
        top = np.cumsum(self.sizes) <= self.k
        kept = ndtr((self.means - threshold) / spread)
        return float(self.sizes[top] @ kept[top] / self.k)

    def _threshold(self, spread: Float) -> float:
        from scipy.optimize import brentq
        from scipy.special import ndtr

        reach = max(_WIDEST * spread.max(), 4 * np.finfo(np.float64).eps * np.abs(self.means).max())
        ends = self.means.min() - reach, self.means.max() + reach
        return float(brentq(lambda t: self.sizes @ ndtr((self.means - t) / spread) - self.k, *ends, xtol=1e-300))


def _bin_edges(k: int, count: int) -> NDArray[np.int64]:
    """Edges of bins of ranks: equal ones over the top k, and growing ones over the others."""
    top = np.round(np.linspace(0, k, min(k, _BINS) + 1))
    rest = k - 1 + np.round(np.geomspace(1, count - k + 1, _BINS + 1))
    return np.unique(np.concatenate([top, rest]).astype(np.int64))
