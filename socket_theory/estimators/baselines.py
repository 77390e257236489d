"""What an estimator must beat, and what it cannot: dense, oracle, window and random selection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.estimators.cache import Cache
from socket_theory.estimators.estimate import Estimate
from socket_theory.estimators.method import Method, refuse
from socket_theory.estimators.step import Step
from socket_theory.rng import Key, uniform
from socket_theory.selection import Budget


@dataclass(frozen=True)
class Dense(Method):
    """Exact softmax attention over every valid token. Takes no budget."""

    def attend(
        self,
        query: Any,
        cache: Cache,
        *,
        budget: Budget | None = None,
        sm_scale: float | None = None,
        out_dtype: Any | None = None,
        key: Key | None = None,
    ) -> Estimate:
        refuse(self, budget=budget)
        return super().attend(query, cache, sm_scale=sm_scale, out_dtype=out_dtype, key=key)

    def captured_mass(self, step: Step, lse: Any) -> Any:
        return np.ones(lse.shape)


@dataclass(frozen=True)
class OracleTopK(Method):
    """Top-k by the exact logits: the least softmax mass any selection of that size can lose."""

    def scores(self, step: Step, key: Key | None) -> Any:
        cache = step.cache
        return cache.backend.exact_scores(step.query, cache.keys, cache.spans, step.sm_scale)

    def captured_mass(self, step: Step, lse: Any) -> Any:
        cache = step.cache
        whole = cache.backend.attend(step.query, cache.keys, cache.values, step.everything(), step.sm_scale)[1]
        return np.exp(np.minimum(cache.backend.to_host(lse - whole), 0.0))


@dataclass(frozen=True)
class Window(Method):
    """The budget's sink, and the most recent tokens for the rest."""

    def scores(self, step: Step, key: Key | None) -> Any:
        shape = (*step.query.shape[:2], step.cache.keys.shape[-2])
        return step.cache.backend.to_device(np.zeros(shape, dtype=np.float32))


@dataclass(frozen=True)
class RandomTokens(Method):
    """The budget's forced tokens, and a uniformly random set of the others, drawn anew for each key and head.

    The draw depends on the sequence's place in the batch, not on its padding.
    """

    def check_key(self, key: Key | None) -> None:
        require_key(self, key)

    def scores(self, step: Step, key: Key | None) -> Any:
        slots = np.arange(step.cache.keys.shape[-2])
        tokens = np.maximum(slots - step.cache.spans[:, :1], 0)
        scores = head_uniforms(require_key(self, key), step, tokens[:, None]).astype(np.float32)
        return step.cache.backend.to_device(scores)


def head_uniforms(key: Key, step: Step, items: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Uniforms by (sequence, query head, item), whatever the padding: items broadcast to [B, Hq, M] -> [B, Hq, M]."""
    batch, heads = step.query.shape[:2]
    rows = np.arange(batch * heads, dtype=np.uint64).reshape(batch, heads, 1)
    return uniform(key, (rows << np.uint64(32)) | items.astype(np.uint64))


def require_key(method: Method, key: Key | None) -> Key:
    """`key`, or TypeError: a method that draws at every step has no default randomness."""
    if not isinstance(key, Key):
        raise TypeError(f"{type(method).__name__} draws at every step, key={key!r} was given: pass Key.from_seed(n).")
    return key
