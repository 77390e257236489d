"""New tokens behind those that a cache holds.

Shapes: B sequences, Hkv KV heads, N slots; spans int64 [B, 2] on the device.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from socket_gpu.core._compile import compiled
from socket_gpu.core._launch import launch


def append_into(slots: Any, rows: Any, spans: Any) -> None:
    """Copy rows [B, Hkv, T, D] behind every span of slots [B, Hkv, N, D]."""
    batch, heads, tokens, dim = rows.shape
    packs = dim * rows.dtype.itemsize // 16
    grid = (-(-tokens * packs // 256), batch * heads)
    arguments = [rows, slots, spans, heads, tokens, slots.shape[2], packs]
    launch(compiled("core/append.cu", "copy_rows"), grid, 256, arguments, "illi")


def advance_spans(spans: Any, status: Any, tokens: int, num_slots: int) -> None:
    """Lengthen every span by `tokens` where it fits in `num_slots`, else set status bit 0."""
    kernel = compiled("core/append.cu", "advance_spans")
    launch(kernel, (-(-len(spans) // 128),), 128, [spans, status, len(spans), tokens, num_slots], "ill")


def lengthened(array: Any, axis: int, size: int) -> Any:
    """A copy of `array` with `size` entries along `axis`: its own, then zeros."""
    cupy, shape = import_module("cupy"), list(array.shape)
    shape[axis] = size
    longer = cupy.zeros(shape, dtype=array.dtype)
    cupy.moveaxis(longer, axis, 0)[: array.shape[axis]] = cupy.moveaxis(array, axis, 0)
    return longer
