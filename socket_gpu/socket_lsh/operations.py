"""SOCKET's own operations on a GPU: every one allocates its result and launches on the current stream."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.core._launch import on_device, row_major
from socket_gpu.socket_lsh import hash_keys, score
from socket_gpu.socket_lsh.codes import LANES, CodeLayout
from socket_gpu.socket_lsh.packed_index import PackedIndex
from socket_theory.core.checks import bfloat16
from socket_theory.core.hashing import Planes, QueryMap
from socket_theory.core.selection import without_underflow
from socket_theory.socket_lsh.operations import NumpyOperations


class CupyOperations:
    """`socket_theory.socket_lsh.operations.SocketOperations` on CuPy arrays, with codes packed by `CodeLayout`."""

    index_type = PackedIndex

    def hash_keys(self, keys: Any, kv_range: Any, planes: Planes, center: Any | None) -> Any:
        layout = CodeLayout(planes.num_tables, planes.num_planes)
        blocks = layout.slot_blocks(keys.shape[2])
        shape = (*keys.shape[:2], blocks, layout.rings, layout.num_planes, LANES)
        codes = import_module("cupy").zeros(shape, dtype=np.uint32)
        offset = None if center is None else row_major(center.astype(np.float64))
        matrix = hash_keys.hash_matrix(planes)
        hash_keys.hash_into(codes, row_major(keys), on_device(kv_range), layout, matrix, offset)
        return codes

    def value_norms(self, values: Any, kv_range: Any) -> Any:
        slots = -(-values.shape[2] // LANES) * LANES
        norms = import_module("cupy").zeros((*values.shape[:2], slots), dtype=bfloat16())
        hash_keys.norms_into(norms, row_major(values), on_device(kv_range))
        return norms

    def mean_keys(self, keys: Any, kv_range: Any) -> Any:
        wide = keys.astype(np.float64)
        means = [wide[row, :, a : a + n].mean(axis=1) for row, (a, n) in enumerate(np.asarray(kv_range).tolist())]
        return import_module("cupy").stack(means).astype(keys.dtype)

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
        cupy = import_module("cupy")
        scores = _scores(query, codes, kv_range, planes, score.Collision(query_map, temperature))
        rows = scores.reshape(len(scores), codes.shape[1] if shared else scores.shape[1], -1)
        vanished = rows.max(axis=-1, keepdims=True) < np.finfo(np.float32).tiny
        if not bool(vanished.any()):
            return scores
        logs = self.log_soft_scores(query, codes, kv_range, planes, query_map, temperature).reshape(rows.shape)
        relative = cupy.exp(logs - logs.max(axis=-1, keepdims=True)).astype(np.float32)
        return cupy.where(vanished & (rows > -np.inf), relative, rows).reshape(scores.shape)

    def log_soft_scores(
        self, query: Any, codes: Any, kv_range: Any, planes: Planes, query_map: QueryMap, temperature: float
    ) -> Any:
        # Sampling needs float64 log weights, and nothing of it is on a GPU yet.
        cupy, layout = import_module("cupy"), CodeLayout(planes.num_tables, planes.num_planes)
        unpacked = layout.unpack(cupy.asnumpy(codes), codes.shape[2] * LANES)
        at = (np.asarray(kv_range), planes, query_map, temperature)
        return cupy.asarray(NumpyOperations().log_soft_scores(cupy.asnumpy(query), unpacked, *at))

    def hard_scores(self, query: Any, codes: Any, kv_range: Any, planes: Planes) -> Any:
        return _scores(query, codes, kv_range, planes, score.Collision("hard"))

    def weigh_scores(self, scores: Any, value_norms: Any, shared: bool = False) -> Any:
        cupy, (batch, heads, slots) = import_module("cupy"), value_norms.shape
        grouped = scores.reshape(batch, heads, -1, slots).astype(np.float64)
        rows = cupy.where(grouped == -np.inf, grouped, grouped * value_norms[:, :, None].astype(np.float64))
        rows = rows.reshape(batch, heads if shared else scores.shape[1], -1)
        return without_underflow(rows, cupy).reshape(scores.shape)

    def sample(
        self, log_weights: Any, values: Any, kv_range: Any, value_norms: Any | None, points: Any
    ) -> tuple[Any, Any, Any]:
        cupy = import_module("cupy")
        norms = None if value_norms is None else cupy.asnumpy(value_norms)
        logs, rows = cupy.asnumpy(log_weights).astype(np.float64), cupy.asnumpy(values)
        drawn = NumpyOperations().sample(logs, rows, np.asarray(kv_range), norms, np.asarray(points))
        value, lse, indices = (cupy.asarray(array) for array in drawn)
        return value, lse, indices


def _scores(query: Any, codes: Any, kv_range: Any, planes: Planes, collision: score.Collision) -> Any:
    layout, fragments = CodeLayout(planes.num_tables, planes.num_planes), hash_keys.plane_fragments(planes)
    scores = import_module("cupy").full((*query.shape[:2], codes.shape[2] * LANES), -np.inf, dtype=np.float32)
    score.score_into(scores, row_major(query), fragments, codes, on_device(kv_range), layout, collision)
    return scores
