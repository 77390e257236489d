"""The reference backend: the functions of hashing, attention and selection, called head by head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core import hashing
from socket_theory.core.attention import attention_logits, weighted_state
from socket_theory.core.draws import sample_mean, sample_mean_value_aware
from socket_theory.core.hashing import Planes, QueryMap
from socket_theory.core.selection import Budget, pad_rows, select_tokens, sum_group, without_underflow
from socket_theory.core.slots import append_tokens, room_of, with_room
from socket_theory.socket_lsh import collisions

Array = NDArray[Any]


class NumpyBackend:
    """Definition of every Protocol operation, in float64 inside."""

    name = "numpy"
    slot_block = 1

    def store(self, array: Array, capacity: int | None) -> Array:
        if capacity is None:
            return array.copy()
        return with_room(array, -2, capacity, array.shape[-2])

    def to_host(self, array: Array) -> Array:
        return array

    def to_device(self, array: Array) -> Array:
        return array

    def hash_keys(self, keys: Array, spans: Array, planes: Planes, center: Array | None) -> Array:
        batch, heads, slots, _ = keys.shape
        codes = _beside(keys, np.zeros((batch, heads, planes.num_tables, slots), dtype=np.uint16))
        for row, valid in enumerate(_slices(spans)):
            offset = None if center is None else center[row].astype(np.float64)
            codes[row, :, :, valid] = hashing.hash_keys(keys[row, :, valid], planes, offset)
        return codes

    def value_norms(self, values: Array, spans: Array) -> Array:
        norms = _beside(values, np.zeros(values.shape[:-1], dtype=np.float32))
        for row, valid in enumerate(_slices(spans)):
            for head, rows in enumerate(values[row, :, valid]):
                wide = rows.astype(np.float64)
                norms[row, head, valid] = hashing.round_to_bfloat16(np.sqrt((wide * wide).sum(-1)))
        return norms

    def mean_keys(self, keys: Array, spans: Array) -> Array:
        means = [keys[row, :, valid].mean(axis=-2, dtype=np.float64) for row, valid in enumerate(_slices(spans))]
        return np.stack(means).astype(keys.dtype)

    def soft_scores(
        self,
        query: Array,
        codes: Array,
        spans: Array,
        planes: Planes,
        query_map: QueryMap,
        temperature: float,
        shared: bool = False,
    ) -> Array:
        def score(one: Array, seen: Array) -> Array:
            mapped = hashing.apply_query_map(hashing.project_query(one, planes), query_map, planes.head_dim)
            return collisions.soft_collision_scores(mapped, seen, temperature)

        scores = _score_heads(score, query, codes, spans, np.float64)
        group = query.shape[1] // codes.shape[1]
        together = group if shared else 1
        for row, first in np.ndindex(len(scores), query.shape[1] // together):
            heads, one = slice(first * together, (first + 1) * together), slice(row, row + 1)
            if scores[row, heads].max() < np.finfo(np.float32).tiny:
                kv_head = first * together // group
                index = codes[one, kv_head : kv_head + 1]
                logs = self.log_soft_scores(query[one, heads], index, spans[one], planes, query_map, temperature)[0]
                scores[row, heads] = np.where(logs > -np.inf, np.exp(logs - logs.max()), -np.inf)
        return scores.astype(np.float32)

    def log_soft_scores(
        self, query: Array, codes: Array, spans: Array, planes: Planes, query_map: QueryMap, temperature: float
    ) -> Array:
        def score(one: Array, seen: Array) -> Array:
            mapped = hashing.apply_query_map(hashing.project_query(one, planes), query_map, planes.head_dim)
            return collisions.log_soft_collision_scores(mapped, seen, temperature)

        return _score_heads(score, query, codes, spans, np.float64)

    def hard_scores(self, query: Array, codes: Array, spans: Array, planes: Planes) -> Array:
        def score(one: Array, seen: Array) -> Array:
            return collisions.hard_collision_scores(hashing.project_query(one, planes), seen)

        return _score_heads(score, query, codes, spans)

    def exact_scores(self, query: Array, keys: Array, spans: Array, sm_scale: float) -> Array:
        def score(one: Array, seen: Array) -> Array:
            logits = attention_logits(one, seen.T, sm_scale)
            return np.asarray(logits - logits.max())

        return _score_heads(score, query, keys.swapaxes(-1, -2), spans)

    def weigh_scores(self, scores: Array, value_norms: Array, shared: bool = False) -> Array:
        batch, heads, slots = value_norms.shape
        grouped = scores.reshape(batch, heads, -1, slots).astype(np.float64)
        with np.errstate(invalid="ignore"):
            weighed = np.where(grouped == -np.inf, grouped, grouped * value_norms[:, :, None])
        rows = weighed.reshape(batch, heads if shared else scores.shape[1], -1)
        return np.asarray(without_underflow(rows, np)).reshape(scores.shape)

    def select(self, scores: Array, spans: Array, budget: Budget, num_kv_heads: int) -> Array:
        rows = []
        for sequence, valid in zip(scores, _slices(spans), strict=True):
            seen = sequence[:, valid]
            group = len(seen) // num_kv_heads
            if budget.group == "shared":
                seen = np.repeat(sum_group(seen, num_kv_heads), group, axis=0)
            rows += [select_tokens(head, budget) + np.int32(valid.start) for head in seen]
        return pad_rows(rows).reshape(*scores.shape[:2], -1)

    def attend(self, query: Array, keys: Array, values: Array, indices: Array, sm_scale: float) -> tuple[Array, Array]:
        group = query.shape[1] // keys.shape[1]
        value, lse = np.empty((*query.shape[:2], values.shape[-1])), np.empty(query.shape[:2])
        for row, head in np.ndindex(*query.shape[:2]):
            kept = indices[row, head][indices[row, head] >= 0]
            logits = attention_logits(query[row, head], keys[row, head // group, kept], sm_scale)
            state = weighted_state(logits, values[row, head // group, kept], "softmax")
            value[row, head], lse[row, head] = state.value, state.lse
        return value, lse

    def average(self, log_weights: Array, values: Array, spans: Array) -> tuple[Array, Array]:
        value, lse = np.empty((*log_weights.shape[:2], values.shape[-1])), np.empty(log_weights.shape[:2])
        for row, head, kv_head, valid in _heads(log_weights, values, spans):
            state = weighted_state(log_weights[row, head, valid], values[row, kv_head, valid], "angular")
            value[row, head], lse[row, head] = state.value, state.lse
        return value, lse

    def sample(
        self, log_weights: Array, values: Array, spans: Array, value_norms: Array | None, points: Array
    ) -> tuple[Array, Array, Array]:
        value, lse = np.empty((*log_weights.shape[:2], values.shape[-1])), np.empty(log_weights.shape[:2])
        rows = []
        for row, head, kv_head, valid in _heads(log_weights, values, spans):
            logs, seen = log_weights[row, head, valid], values[row, kv_head, valid]
            weights = np.exp(logs - logs.max())
            if value_norms is None:
                value[row, head], drawn = sample_mean(weights, seen, points[row, head])
            else:
                norms = value_norms[row, kv_head, valid].astype(np.float64)
                value[row, head], drawn = sample_mean_value_aware(weights, norms, seen, points[row, head])
            lse[row, head] = np.logaddexp.reduce(logs)
            rows.append((np.unique(drawn) + valid.start).astype(np.int32))
        return value, lse, pad_rows(rows).reshape(*lse.shape, -1)

    def write_tokens(
        self, old: Mapping[str, Array], new: Mapping[str, Array], spans: Array, capacity: int | None
    ) -> dict[str, Array]:
        return append_tokens(old, new, np.asarray(spans).sum(axis=1), capacity or 0)

    def take_rows(self, arrays: Mapping[str, Array], rows: Array) -> dict[str, Array]:
        return {name: array[rows] for name, array in arrays.items()}


def _slices(spans: Array) -> list[slice]:
    return [slice(int(start), int(start + length)) for start, length in spans]


def _heads(query: Array, index: Array, spans: Array) -> Iterator[tuple[int, int, int, slice]]:
    group = query.shape[1] // index.shape[1]
    for row, valid in enumerate(_slices(spans)):
        for head in range(query.shape[1]):
            yield row, head, head // group, valid


def _score_heads(
    score: Callable[[Array, Array], Array], query: Array, index: Array, spans: Array, dtype: Any = np.float32
) -> Array:
    scores = np.full((*query.shape[:2], index.shape[-1]), -np.inf, dtype=dtype)
    for row, head, kv_head, valid in _heads(query, index, spans):
        with np.errstate(over="ignore"):
            scores[row, head, valid] = score(query[row, head].astype(np.float64), index[row, kv_head, :, valid])
    return scores


def _beside(rows: Array, index: Array) -> Array:
    """`index`, token axis last, with as much room as the `rows` it is made of, token axis second to last."""
    slots = room_of(rows, -2)
    return index if slots == index.shape[-1] else with_room(index, -1, slots, index.shape[-1])
