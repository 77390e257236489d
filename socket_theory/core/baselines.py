"""What an estimator must beat, and what it cannot: dense, oracle, window and random selection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.cache import Cache
from socket_theory.core.estimate import Estimate
from socket_theory.core.inputs import refuse
from socket_theory.core.method import Method
from socket_theory.core.rng import Key, uniform
from socket_theory.core.selection import Budget
from socket_theory.core.step import Step


@dataclass(frozen=True)
class Dense(Method):
    """Exact softmax attention over every valid token: what the others are measured against. Takes no budget.

    value = sum_i p_i v_i with p_i = exp(l_i) / sum_j exp(l_j) and l_i = sm_scale <q, k_i>, for a query q and the keys
    k_i and values v_i of its KV head; lse = ln sum_j exp(l_j). All keys and values are read at every step: bytes and
    time grow with the tokens. There is no index and no setting, and the captured mass is 1. States of disjoint tokens
    merge to that of their union (C1).
    """

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
    """Top-k by the exact logits sm_scale <q, k_i>, of a query q and the keys k_i: the most that ranking can reach.

    No set of that size with the same sink and window holds more softmax mass, and the mass left out bounds the error
    (S13): with a larger budget both fall. It is a yardstick and no method. A step computes every logit in the time of
    dense attention, while its `stats` count the kept rows alone, as if the ranking were free. The later token wins a
    tie; there is no setting.
    """

    def scores(self, step: Step, key: Key | None) -> Any:
        cache = step.cache
        return cache.backend.exact_scores(step.query, cache.keys, cache.spans, step.sm_scale)

    def captured_mass(self, step: Step, lse: Any) -> Any:
        cache = step.cache
        whole = cache.backend.attend(step.query, cache.keys, cache.values, step.everything(), step.sm_scale)[1]
        return np.exp(np.minimum(cache.backend.to_host(lse - whole), 0.0))


@dataclass(frozen=True)
class Window(Method):
    """Sliding-window attention with sinks: the budget's first `sink` tokens, and the most recent ones for the rest.

    What is kept does not depend on the query, so the error is that of whatever matters further back, and a larger
    budget removes it only as far as it reaches. A step reads keys and values of the kept tokens alone; there is no
    index and no setting.

    References
    ----------
    Xiao et al., "Efficient Streaming Language Models with Attention Sinks", arXiv 2309.17453.
    """

    def scores(self, step: Step, key: Key | None) -> Any:
        shape = (*step.query.shape[:2], step.cache.keys.shape[-2])
        return step.cache.backend.to_device(np.zeros(shape, dtype=np.float32))


@dataclass(frozen=True)
class RandomTokens(Method):
    """The budget's sink and window, and a uniformly random set of the others: what a ranking must beat.

    `attend` requires `key`, and draws a set for each query head (for each KV head with `group="shared"`) that depends
    on the key and on the head's and the sequence's place in the batch, not on padding. The kept tokens get exact
    softmax attention among themselves, which does not estimate dense attention without bias. Bytes are those of the
    kept keys and values; there is no index and no setting.
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
