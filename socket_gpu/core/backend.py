"""The Protocol of socket_theory on a GPU: every operation allocates its result and launches on the current stream."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.core import attend, select_tokens
from socket_gpu.core._launch import on_device, row_major
from socket_gpu.core.append import lengthened
from socket_gpu.core.requirements import missing_requirement
from socket_gpu.core.rows import DeviceRows, require_width
from socket_theory.core.selection import Budget


@cache
def _require() -> None:
    missing = missing_requirement()
    if missing:
        raise RuntimeError(f"CuPy and CUDA arrays need a GPU backend, and {missing}")


class CupyBackend:
    """Arrays are CuPy arrays; `kv_range` are host or device integers.

    What a family needs beside is registered by `socket_gpu.registry`.

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
        return lengthened(require_width(array), 2, capacity or array.shape[2])

    def to_host(self, array: Any) -> Any:
        return self.cupy.asnumpy(array)

    def to_device(self, array: Any) -> Any:
        return self.cupy.asarray(array)

    def write(self, array: Any, new: Any, ends: Any, capacity: int | None, axis: int) -> Any:
        move, added = self.cupy.moveaxis, new.shape[axis]
        needed = int(np.max(ends)) + added
        written = array if needed <= array.shape[axis] else lengthened(array, axis, max(needed, capacity or 0))
        for row, end in enumerate(np.asarray(ends).tolist()):
            move(written[row], axis, 0)[end : end + added] = move(new[row], axis, 0)
        return written

    def take(self, array: Any, order: Any) -> Any:
        return array[self.cupy.asarray(order)]

    def exact_scores(self, query: Any, rows: Any, sm_scale: float) -> Any:
        keys = rows.keys
        scores = self.cupy.full((*query.shape[:2], keys.shape[2]), -np.inf, dtype=np.float32)
        group = query.shape[1] // keys.shape[1]
        for row, (start, length) in enumerate(np.asarray(rows.kv_range).tolist()):
            stop = start + length
            for head, own in enumerate(keys[row, :, start:stop].astype(np.float64)):
                grouped = query[row, head * group : (head + 1) * group].astype(np.float64)
                logits = sm_scale * grouped @ own.T
                logits -= logits.max(axis=1, keepdims=True)
                scores[row, head * group : (head + 1) * group, start:stop] = logits
        return scores

    def select(self, scores: Any, kv_range: Any, budget: Budget, num_kv_heads: int) -> Any:
        cupy, (batch, heads, slots) = self.cupy, scores.shape
        group = heads // num_kv_heads
        if budget.per == "kv_head":
            total = cupy.empty((batch, num_kv_heads, slots), dtype=np.float32)
            select_tokens.sum_group_into(total, scores)
            scores = total
        kept = max(budget.kept(int(length)) for length in np.asarray(kv_range)[:, 1])
        indices = cupy.empty((batch, scores.shape[1], kept), dtype=np.int32)
        lengths = cupy.empty((batch, scores.shape[1]), dtype=np.int32)
        select_tokens.select_into(indices, lengths, scores, on_device(kv_range), budget)
        return cupy.repeat(indices, group, axis=1) if budget.per == "kv_head" else indices

    def attend(self, query: Any, rows: Any, indices: Any, sm_scale: float) -> tuple[Any, Any]:
        cupy, (batch, heads, dim), own = self.cupy, query.shape, DeviceRows.readable(rows)
        lengths = (indices >= 0).sum(axis=-1).astype(np.int32).reshape(-1)
        wide = np.float64 if own.keys.dtype.itemsize == 8 else np.float32
        value, lse = cupy.empty((batch, heads, dim), dtype=wide), cupy.empty((batch, heads), dtype=wide)
        lists = row_major(indices.reshape(batch * heads, -1))
        buffers = attend.AttendBuffers.empty(batch * heads, 1, own.keys, 1 + lists.shape[-1] // 512, wide)
        attend.attend_into(value, lse, row_major(query), own, lists, lengths, sm_scale, buffers)
        return value, lse

    def average(self, log_weights: Any, rows: Any) -> tuple[Any, Any]:
        cupy, values = self.cupy, rows.values
        group = log_weights.shape[1] // values.shape[1]
        value = cupy.empty((*log_weights.shape[:2], values.shape[-1]))
        lse = cupy.empty(log_weights.shape[:2])
        for row, (start, length) in enumerate(np.asarray(rows.kv_range).tolist()):
            logs = log_weights[row, :, start : start + length].astype(np.float64)
            top = logs.max(axis=1, keepdims=True)
            weights = cupy.exp(logs - top).reshape(values.shape[1], group, -1)
            total = weights.sum(axis=-1)
            means = weights @ values[row, :, start : start + length].astype(np.float64) / total[..., None]
            value[row], lse[row] = means.reshape(-1, values.shape[-1]), top[:, 0] + cupy.log(total.reshape(-1))
        return value, lse
