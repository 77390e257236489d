"""The reference backend: the functions of attention and selection, called head by head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.attention import attention_logits, weighted_state
from socket_theory.core.selection import Budget, pad_rows, select_tokens, sum_group
from socket_theory.core.slots import append_tokens, with_room

Array = NDArray[Any]


class NumpyBackend:
    """Definition of every operation of the Protocol, in float64 inside."""

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

    def write(self, array: Array, new: Array, ends: Array, capacity: int | None, axis: int) -> Array:
        return append_tokens(array, new, np.asarray(ends), capacity or 0, axis)

    def take(self, array: Array, order: Array) -> Array:
        return np.asarray(array[order])

    def exact_scores(self, query: Array, rows: Any, sm_scale: float) -> Array:
        scores = np.full((*query.shape[:2], rows.shape[2]), -np.inf, dtype=np.float32)
        for row, head, kv_head, valid in heads(query, rows.kv_range, rows.shape[1]):
            logits = attention_logits(query[row, head].astype(np.float64), rows.read(row, kv_head, valid)[0], sm_scale)
            with np.errstate(over="ignore"):
                scores[row, head, valid] = logits - logits.max()
        return scores

    def select(self, scores: Array, kv_range: Array, budget: Budget, num_kv_heads: int) -> Array:
        rows = []
        for sequence, valid in zip(scores, valid_slots(kv_range), strict=True):
            seen = sequence[:, valid]
            group = len(seen) // num_kv_heads
            if budget.per == "kv_head":
                seen = np.repeat(sum_group(seen, num_kv_heads), group, axis=0)
            rows += [select_tokens(head, budget) + np.int32(valid.start) for head in seen]
        return pad_rows(rows).reshape(*scores.shape[:2], -1)

    def attend(self, query: Array, rows: Any, indices: Array, sm_scale: float) -> tuple[Array, Array]:
        group = query.shape[1] // rows.shape[1]
        value, lse = np.empty((*query.shape[:2], rows.value_dim)), np.empty(query.shape[:2])
        for row, head in np.ndindex(*query.shape[:2]):
            kept = indices[row, head][indices[row, head] >= 0]
            at = query[row, head], sm_scale
            value[row, head], lse[row, head] = _softmax(*at, *rows.read(row, head // group, kept))
        return value, lse

    def average(self, log_weights: Array, rows: Any) -> tuple[Array, Array]:
        value, lse = np.empty((*log_weights.shape[:2], rows.value_dim)), np.empty(log_weights.shape[:2])
        for row, head, kv_head, valid in heads(log_weights, rows.kv_range, rows.shape[1]):
            values = rows.read(row, kv_head, valid)[1]
            state = weighted_state(log_weights[row, head, valid], values, "angular")
            value[row, head], lse[row, head] = state.value, state.lse
        return value, lse


def _softmax(query: Array, sm_scale: float, keys: Array, values: Array) -> tuple[Array, Any]:
    state = weighted_state(attention_logits(query, keys, sm_scale), values, "softmax")
    return state.value, state.lse


def valid_slots(kv_range: Array) -> list[slice]:
    """The valid slots of each sequence."""
    return [slice(int(start), int(start + length)) for start, length in kv_range]


def heads(query: Array, kv_range: Array, num_kv_heads: int) -> Iterator[tuple[int, int, int, slice]]:
    """(sequence, query head, KV head, valid slots) of every query head."""
    group = query.shape[1] // num_kv_heads
    for row, valid in enumerate(valid_slots(kv_range)):
        for head in range(query.shape[1]):
            yield row, head, head // group, valid
