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
        weighted = np.swapaxes(_flat(held), -1, -2) @ values
        return cls(held.sum(axis=-3), weighted.reshape(*weighted.shape[:-2], *held.shape[-2:], values.shape[-1]))

    @classmethod
    def of_none(cls, values: Any, weights: Any) -> BucketSums:
        """Of no token, for values [..., n, E] and the weights [L, P, D] of planes."""
        *batch_shape, _, length = values.shape
        mass = np.zeros_like(values, np.float64, shape=(*batch_shape, len(weights), 2 ** weights.shape[1]))
        return cls(mass, np.zeros_like(mass, shape=(*mass.shape, length)))

    def plus(self, other: BucketSums) -> BucketSums:
        return BucketSums(self.mass + other.mass, self.weighted + other.weighted)

    def read(self, asked: Any) -> tuple[Any, Any]:
        """Weighted sums of values [..., t, E], and sums of weights [..., t], for features [..., t, L, R] of queries.

        They are sums over tables too: divide both, or neither, by L.
        """
        features, mass = _flat(asked), self.mass.reshape(*self.mass.shape[:-2], -1, 1)
        return features @ self.weighted.reshape(*mass.shape[:-1], -1), (features @ mass)[..., 0]

    def read_causally(self, asked: Any, held: Any, values: Any) -> tuple[Any, Any]:
        """As `read`, for t tokens behind those summed, each of which also sees those of its own up to itself."""
        among = np.tril(_flat(asked) @ np.swapaxes(_flat(held), -1, -2))
        weighted, total = self.read(asked)
        return weighted + among @ values, total + among.sum(axis=-1)


def _flat(features: Any) -> Any:
    """[..., n, L, R] -> [..., n, L R]."""
    return features.reshape(*features.shape[:-2], -1)
