"""Short sequences that the claims about whole rows share, and the dense form that they are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.claim import Context
from socket_theory.core.hashing import Planes
from socket_theory.race.features import collision_weights

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sequence:
    """query [Hq, T, D], keys [Hkv, N, D], values [Hkv, N, E], with Hq a multiple of Hkv, planes and beta."""

    query: Float
    keys: Float
    values: Float
    planes: Planes
    beta: float

    @property
    def largest(self) -> float:
        """The largest component of a value."""
        return float(np.max(np.abs(self.values)))

    def dense(self, causal: bool) -> Float:
        """O [Hq, T, E] by the masked matrix of all weights."""
        groups = len(self.query) // len(self.keys)
        keys, values = (np.repeat(rows, groups, axis=0) for rows in (self.keys, self.values))
        weights = collision_weights(self.query, keys, self.planes, self.beta)
        if causal:
            weights = np.tril(weights, keys.shape[1] - self.query.shape[1])
        return np.asarray(weights @ values / weights.sum(axis=-1, keepdims=True))


def sequences(context: Context, quick: int = 2) -> Iterator[Sequence]:
    """Random ones: two query heads a KV head, fewer queries than keys, values away from 0."""
    for key, _ in context.batches(context.samples(quick), 1):
        rng = key.generator()
        planes, beta = Planes(rng.standard_normal((3, 2, 5))), float(rng.uniform(0.3, 4.0))
        query, keys = rng.standard_normal((4, 19, 5)), rng.standard_normal((2, 23, 5))
        yield Sequence(query, keys, 1 + rng.standard_normal((2, 23, 3)), planes, beta)


def square(sequence: Sequence) -> Sequence:
    """As many queries as keys: the last ones twice where there were fewer."""
    missing = sequence.keys.shape[1] - sequence.query.shape[1]
    return replace(sequence, query=np.concatenate([sequence.query[:, :missing], sequence.query], axis=1))
