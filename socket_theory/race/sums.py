"""What RACE keeps of the tokens it has seen: sums over each bucket of each table, whose size no token changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class BucketSums:
    """mass A = sum_j phi(k_j) [..., L, R] and weighted B = sum_j phi(k_j) v_j [..., L, R, E], in float64."""

    mass: Any
    weighted: Any

    @classmethod
    def of(cls, held: Any, values: Any) -> BucketSums:
        """Of tokens with features [..., n, L, R] and values [..., n, E]."""
        return cls(held.sum(axis=-3), np.einsum("...nlr,...ne->...lre", held, values))

    def plus(self, other: BucketSums) -> BucketSums:
        return BucketSums(self.mass + other.mass, self.weighted + other.weighted)

    def read(self, asked: Any) -> tuple[Any, Any]:
        """Weighted sums [..., t, E] of values, and their weights' sums [..., t], for features [..., t, L, R] of queries.

        They are sums over tables too: divide both, or neither, by L.
        """
        total = np.einsum("...tlr,...lr->...t", asked, self.mass)
        return np.einsum("...tlr,...lre->...te", asked, self.weighted), total

    def read_causally(self, asked: Any, held: Any, values: Any) -> tuple[Any, Any]:
        """As `read`, for t tokens behind those summed, each of which also sees those of its own up to itself."""
        among = np.tril(np.einsum("...tlr,...nlr->...tn", asked, held))
        weighted, total = self.read(asked)
        return weighted + among @ values, total + among.sum(axis=-1)
