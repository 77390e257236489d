"""SOCKET's own operations: what a backend must provide for codes and soft collisions, and their reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from socket_theory.core import hashing
from socket_theory.core.backend import register_operations
from socket_theory.core.draws import sample_mean, sample_mean_value_aware
from socket_theory.core.hashing import Planes, QueryMap
from socket_theory.core.index import TokenIndex
from socket_theory.core.numpy_backend import heads, valid_slots
from socket_theory.core.selection import pad_rows, without_underflow
from socket_theory.core.slots import beside
from socket_theory.socket_lsh import collisions

Array = NDArray[Any]

FAMILY = "socket_lsh"


class SocketOperations(Protocol):
    """Operations on arrays of a backend: B sequences, Hq query heads, Hkv KV heads, N token slots, L tables.

    `kv_range` is int64 [B, 2] of (kv_start, kv_len); slots outside a sequence's range are never read.
    """

    index_type: type[TokenIndex]
    """The index of codes and norms as they are packed here."""

    def hash_keys(self, keys: Any, kv_range: Any, planes: Planes, center: Any | None) -> Any:
        """Codes of keys [B, Hkv, N, D] in the backend's packing, [B, Hkv, L, N] in the reference."""

    def value_norms(self, values: Any, kv_range: Any) -> Any:
        """Norms rounded to bfloat16, as float32: values [B, Hkv, N, D] -> [B, Hkv, N]."""

    def mean_keys(self, keys: Any, kv_range: Any) -> Any:
        """Mean of the valid keys rounded to the keys' dtype: [B, Hkv, N, D] -> [B, Hkv, D]."""

    def soft_scores(
        self,
        query: Any,
        codes: Any,
        kv_range: Any,
        planes: Planes,
        query_map: QueryMap,
        temperature: float,
        shared: bool = False,
    ) -> Any:
        """Mean soft collision weight, float32: query [B, Hq, D], codes -> [B, Hq, N'], N' >= N; -inf outside.

        A row that underflows everywhere is divided by its largest weight; with `shared` the rows of a KV head, which
        are to be added, all by the largest of any, and only where all of them underflow.
        """

    def log_soft_scores(
        self, query: Any, codes: Any, kv_range: Any, planes: Planes, query_map: QueryMap, temperature: float
    ) -> Any:
        """Natural log of the mean soft collision weight, float64 [B, Hq, N]; -inf outside the ranges."""

    def hard_scores(self, query: Any, codes: Any, kv_range: Any, planes: Planes) -> Any:
        """Share of tables with a bucket match, float32 [B, Hq, N]; -inf outside the ranges."""

    def weigh_scores(self, scores: Any, value_norms: Any, shared: bool = False) -> Any:
        """Scores times norms [B, Hkv, N], float32; products that underflow are rescaled as in `soft_scores`."""

    def sample(
        self, log_weights: Any, values: Any, kv_range: Any, value_norms: Any | None, points: Any
    ) -> tuple[Any, Any, Any]:
        """A draw of the weighted mean of values at uniforms [B, Hq, M], value-aware if norms are given: value, lse and
        kept slots."""


class NumpyOperations:
    """Definition of every operation of the Protocol, in float64 inside."""

    index_type = TokenIndex

    def hash_keys(self, keys: Array, kv_range: Array, planes: Planes, center: Array | None) -> Array:
        batch, heads, slots, _ = keys.shape
        codes = beside(keys, np.zeros((batch, heads, planes.num_tables, slots), dtype=np.uint16))
        for row, valid in enumerate(valid_slots(kv_range)):
            offset = None if center is None else center[row].astype(np.float64)
            codes[row, :, :, valid] = hashing.hash_keys(keys[row, :, valid], planes, offset)
        return codes

    def value_norms(self, values: Array, kv_range: Array) -> Array:
        norms = beside(values, np.zeros(values.shape[:-1], dtype=np.float32))
        for row, valid in enumerate(valid_slots(kv_range)):
            for head, rows in enumerate(values[row, :, valid]):
                wide = rows.astype(np.float64)
                norms[row, head, valid] = hashing.round_to_bfloat16(np.sqrt((wide * wide).sum(-1)))
        return norms

    def mean_keys(self, keys: Array, kv_range: Array) -> Array:
        means = [keys[row, :, valid].mean(axis=-2, dtype=np.float64) for row, valid in enumerate(valid_slots(kv_range))]
        return np.stack(means).astype(keys.dtype)

    def soft_scores(
        self,
        query: Array,
        codes: Array,
        kv_range: Array,
        planes: Planes,
        query_map: QueryMap,
        temperature: float,
        shared: bool = False,
    ) -> Array:
        def score(one: Array, seen: Array) -> Array:
            mapped = hashing.apply_query_map(hashing.project_query(one, planes), query_map, planes.head_dim)
            return collisions.soft_collision_scores(mapped, seen, temperature)

        scores = _score_heads(score, query, codes, kv_range, np.float64)
        group = query.shape[1] // codes.shape[1]
        together = group if shared else 1
        for row, first in np.ndindex(len(scores), query.shape[1] // together):
            heads, one = slice(first * together, (first + 1) * together), slice(row, row + 1)
            if scores[row, heads].max() < np.finfo(np.float32).tiny:
                kv_head = first * together // group
                index = codes[one, kv_head : kv_head + 1]
                logs = self.log_soft_scores(query[one, heads], index, kv_range[one], planes, query_map, temperature)[0]
                scores[row, heads] = np.where(logs > -np.inf, np.exp(logs - logs.max()), -np.inf)
        return scores.astype(np.float32)

    def log_soft_scores(
        self, query: Array, codes: Array, kv_range: Array, planes: Planes, query_map: QueryMap, temperature: float
    ) -> Array:
        def score(one: Array, seen: Array) -> Array:
            mapped = hashing.apply_query_map(hashing.project_query(one, planes), query_map, planes.head_dim)
            return collisions.log_soft_collision_scores(mapped, seen, temperature)

        return _score_heads(score, query, codes, kv_range, np.float64)

    def hard_scores(self, query: Array, codes: Array, kv_range: Array, planes: Planes) -> Array:
        def score(one: Array, seen: Array) -> Array:
            return collisions.hard_collision_scores(hashing.project_query(one, planes), seen)

        return _score_heads(score, query, codes, kv_range)

    def weigh_scores(self, scores: Array, value_norms: Array, shared: bool = False) -> Array:
        batch, heads, slots = value_norms.shape
        grouped = scores.reshape(batch, heads, -1, slots).astype(np.float64)
        with np.errstate(invalid="ignore"):
            weighed = np.where(grouped == -np.inf, grouped, grouped * value_norms[:, :, None])
        rows = weighed.reshape(batch, heads if shared else scores.shape[1], -1)
        return np.asarray(without_underflow(rows, np)).reshape(scores.shape)

    def sample(
        self, log_weights: Array, values: Array, kv_range: Array, value_norms: Array | None, points: Array
    ) -> tuple[Array, Array, Array]:
        value, lse = np.empty((*log_weights.shape[:2], values.shape[-1])), np.empty(log_weights.shape[:2])
        rows = []
        for row, head, kv_head, valid in heads(log_weights, kv_range, values.shape[1]):
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


def _score_heads(
    score: Callable[[Array, Array], Array], query: Array, index: Array, kv_range: Array, dtype: Any = np.float32
) -> Array:
    scores = np.full((*query.shape[:2], index.shape[-1]), -np.inf, dtype=dtype)
    for row, head, kv_head, valid in heads(query, kv_range, index.shape[1]):
        with np.errstate(over="ignore"):
            scores[row, head, valid] = score(query[row, head].astype(np.float64), index[row, kv_head, :, valid])
    return scores


register_operations(FAMILY, "numpy", NumpyOperations())
