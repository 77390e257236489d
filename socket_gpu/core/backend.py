"""The Protocol of socket_theory on a GPU: every operation allocates its result and launches on the current stream."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.core import attend as attending
from socket_gpu.core import select_tokens as selecting
from socket_gpu.core._launch import aligned
from socket_gpu.core.requirements import missing_requirement
from socket_gpu.socket_lsh import hash_keys as key_index
from socket_gpu.socket_lsh import score as scoring
from socket_gpu.socket_lsh.codes import CodeLayout
from socket_theory.core.checks import bfloat16
from socket_theory.core.hashing import Planes, QueryMap
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.core.selection import Budget, without_underflow

_MOST_DIM = 256


@cache
def _require() -> None:
    missing = missing_requirement()
    if missing:
        raise RuntimeError(f"CuPy and CUDA arrays need a GPU backend, and {missing}")


class CupyBackend:
    """Arrays are CuPy arrays; spans are host or device integers.

    Raises
    ------
    RuntimeError
        Naming the missing package, driver, device or headers.
    """

    name = "cupy"
    slot_block = 32

    def __init__(self) -> None:
        _require()
        self.cupy = import_module("cupy")

    def store(self, array: Any, capacity: int | None) -> Any:
        if array.dtype.itemsize * array.shape[-1] % 16:
            raise ValueError(f"head_dim={array.shape[-1]} of {array.dtype} was given: the GPU reads rows of 16 bytes.")
        if array.shape[-1] > _MOST_DIM:
            raise ValueError(f"head_dim={array.shape[-1]} was given: the GPU takes at most {_MOST_DIM}.")
        stored = self.cupy.zeros((*array.shape[:2], capacity or array.shape[2], array.shape[3]), dtype=array.dtype)
        stored[:, :, : array.shape[2]] = array
        return stored

    def to_host(self, array: Any) -> Any:
        return self.cupy.asnumpy(array)

    def to_device(self, array: Any) -> Any:
        return self.cupy.asarray(array)

    def hash_keys(self, keys: Any, spans: Any, planes: Planes, center: Any | None) -> Any:
        layout = CodeLayout(planes.num_tables, planes.num_planes)
        blocks = layout.slot_blocks(keys.shape[2])
        codes = self.cupy.zeros((*keys.shape[:2], blocks, layout.rings, layout.num_planes, 32), dtype=np.uint32)
        offset = None if center is None else self._row_major(center.astype(np.float64))
        key_index.hash_into(
            codes, self._row_major(keys), self._spans(spans), layout, key_index.hash_matrix(planes), offset
        )
        return codes

    def value_norms(self, values: Any, spans: Any) -> Any:
        slots = -(-values.shape[2] // 32) * 32
        norms = self.cupy.zeros((*values.shape[:2], slots), dtype=bfloat16())
        key_index.norms_into(norms, self._row_major(values), self._spans(spans))
        return norms

    def mean_keys(self, keys: Any, spans: Any) -> Any:
        wide = keys.astype(np.float64)
        means = [wide[row, :, a : a + n].mean(axis=1) for row, (a, n) in enumerate(np.asarray(spans).tolist())]
        return self.cupy.stack(means).astype(keys.dtype)

    def soft_scores(
        self,
        query: Any,
        codes: Any,
        spans: Any,
        planes: Planes,
        query_map: QueryMap,
        temperature: float,
        shared: bool = False,
    ) -> Any:
        scores = self._scores(query, codes, spans, planes, scoring.Collision(query_map, temperature))
        rows = scores.reshape(len(scores), codes.shape[1] if shared else scores.shape[1], -1)
        vanished = rows.max(axis=-1, keepdims=True) < np.finfo(np.float32).tiny
        if not bool(vanished.any()):
            return scores
        logs = self.log_soft_scores(query, codes, spans, planes, query_map, temperature).reshape(rows.shape)
        relative = self.cupy.exp(logs - logs.max(axis=-1, keepdims=True)).astype(np.float32)
        return self.cupy.where(vanished & (rows > -np.inf), relative, rows).reshape(scores.shape)

    def log_soft_scores(
        self, query: Any, codes: Any, spans: Any, planes: Planes, query_map: QueryMap, temperature: float
    ) -> Any:
        # Sampling needs float64 log weights, and nothing of it is on a GPU yet.
        layout = CodeLayout(planes.num_tables, planes.num_planes)
        unpacked = layout.unpack(self.to_host(codes), codes.shape[2] * 32)
        arguments = (self.to_host(query), unpacked, np.asarray(spans), planes, query_map, temperature)
        return self.to_device(NumpyBackend().log_soft_scores(*arguments))

    def hard_scores(self, query: Any, codes: Any, spans: Any, planes: Planes) -> Any:
        return self._scores(query, codes, spans, planes, scoring.Collision("hard"))

    def exact_scores(self, query: Any, keys: Any, spans: Any, sm_scale: float) -> Any:
        scores = self._no_scores(query, keys.shape[2])
        group = query.shape[1] // keys.shape[1]
        for row, (start, length) in enumerate(np.asarray(spans).tolist()):
            stop = start + length
            for head, rows in enumerate(keys[row, :, start:stop].astype(np.float64)):
                grouped = query[row, head * group : (head + 1) * group].astype(np.float64)
                logits = sm_scale * grouped @ rows.T
                logits -= logits.max(axis=1, keepdims=True)
                scores[row, head * group : (head + 1) * group, start:stop] = logits
        return scores

    def weigh_scores(self, scores: Any, value_norms: Any, shared: bool = False) -> Any:
        batch, heads, slots = value_norms.shape
        grouped = scores.reshape(batch, heads, -1, slots).astype(np.float64)
        rows = self.cupy.where(grouped == -np.inf, grouped, grouped * value_norms[:, :, None].astype(np.float64))
        rows = rows.reshape(batch, heads if shared else scores.shape[1], -1)
        return without_underflow(rows, self.cupy).reshape(scores.shape)

    def select(self, scores: Any, spans: Any, budget: Budget, num_kv_heads: int) -> Any:
        cupy, (batch, heads, slots) = self.cupy, scores.shape
        group = heads // num_kv_heads
        if budget.per == "kv_head":
            total = cupy.empty((batch, num_kv_heads, slots), dtype=np.float32)
            selecting.sum_group_into(total, scores)
            scores = total
        kept = max(budget.kept(int(length)) for length in np.asarray(spans)[:, 1])
        indices = cupy.empty((batch, scores.shape[1], kept), dtype=np.int32)
        lengths = cupy.empty((batch, scores.shape[1]), dtype=np.int32)
        selecting.select_into(indices, lengths, scores, self._spans(spans), budget)
        return cupy.repeat(indices, group, axis=1) if budget.per == "kv_head" else indices

    def attend(self, query: Any, keys: Any, values: Any, indices: Any, sm_scale: float) -> tuple[Any, Any]:
        cupy, (batch, heads, dim) = self.cupy, query.shape
        lengths = (indices >= 0).sum(axis=-1).astype(np.int32).reshape(-1)
        wide = np.float64 if keys.dtype.itemsize == 8 else np.float32
        value, lse = cupy.empty((batch, heads, dim), dtype=wide), cupy.empty((batch, heads), dtype=wide)
        lists = self._row_major(indices.reshape(batch * heads, -1))
        buffers = attending.AttendBuffers.empty(batch * heads, 1, keys, 1 + lists.shape[-1] // 512, wide)
        query, keys, values = (self._row_major(a) for a in (query, keys, values))
        attending.attend_into(value, lse, query, keys, values, lists, lengths, sm_scale, buffers)
        return value, lse

    def average(self, log_weights: Any, values: Any, spans: Any) -> tuple[Any, Any]:
        cupy = self.cupy
        group = log_weights.shape[1] // values.shape[1]
        value = cupy.empty((*log_weights.shape[:2], values.shape[-1]))
        lse = cupy.empty(log_weights.shape[:2])
        for row, (start, length) in enumerate(np.asarray(spans).tolist()):
            logs = log_weights[row, :, start : start + length].astype(np.float64)
            top = logs.max(axis=1, keepdims=True)
            weights = cupy.exp(logs - top).reshape(values.shape[1], group, -1)
            total = weights.sum(axis=-1)
            means = weights @ values[row, :, start : start + length].astype(np.float64) / total[..., None]
            value[row], lse[row] = means.reshape(-1, values.shape[-1]), top[:, 0] + cupy.log(total.reshape(-1))
        return value, lse

    def sample(
        self, log_weights: Any, values: Any, spans: Any, value_norms: Any | None, points: Any
    ) -> tuple[Any, Any, Any]:
        norms = None if value_norms is None else self.to_host(value_norms)
        logs, rows = self.to_host(log_weights).astype(np.float64), self.to_host(values)
        value, lse, indices = NumpyBackend().sample(logs, rows, np.asarray(spans), norms, np.asarray(points))
        return self.to_device(value), self.to_device(lse), self.to_device(indices)

    def write_tokens(
        self, old: Mapping[str, Any], new: Mapping[str, Any], spans: Any, capacity: int | None
    ) -> dict[str, Any]:
        return key_index.write_tokens(old, new, np.asarray(spans).sum(axis=1))

    def take_rows(self, arrays: Mapping[str, Any], rows: Any) -> dict[str, Any]:
        return {name: array[self.cupy.asarray(rows)] for name, array in arrays.items()}

    def _scores(self, query: Any, codes: Any, spans: Any, planes: Planes, collision: scoring.Collision) -> Any:
        layout, fragments = CodeLayout(planes.num_tables, planes.num_planes), key_index.plane_fragments(planes)
        scores = self._no_scores(query, codes.shape[2] * 32)
        scoring.score_into(scores, self._row_major(query), fragments, codes, self._spans(spans), layout, collision)
        return scores

    def _no_scores(self, query: Any, slots: int) -> Any:
        return self.cupy.full((*query.shape[:2], slots), -np.inf, dtype=np.float32)

    def _spans(self, spans: Any) -> Any:
        return self.cupy.asarray(spans, dtype=np.int64)

    def _row_major(self, array: Any) -> Any:
        return aligned(self.cupy.ascontiguousarray(array))
