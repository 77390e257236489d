"""New tokens behind those that a cache holds.

Shapes: B sequences, Hkv KV heads, N slots; spans int64 [B, 2] on the device.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.core._compile import compiled
from socket_gpu.core._launch import launch
from socket_gpu.core.rows import DeviceRows

_PACK = 16


def append_into(slots: Any, rows: Any, spans: Any) -> None:
    """Copy rows [B, Hkv, T, D] behind every span of slots [B, Hkv, N, D]."""
    batch, heads, tokens, dim = rows.shape
    packs = dim * rows.dtype.itemsize // _PACK
    launch(
        compiled("core/append.cu", "copy_rows"),
        (-(-tokens * packs // 256), batch * heads),
        256,
        rows=rows,
        slots=slots,
        spans=spans,
        num_kv_heads=heads,
        packs=packs,
        tokens=np.int64(tokens),
        num_slots=np.int64(slots.shape[2]),
    )


def read_into(keys: Any, values: Any, rows: DeviceRows, spans: Any) -> None:
    """Copy the tokens behind every span of an owner's rows to keys, values [B, Hkv, T, D]."""
    (batch, heads, tokens, dim), (_, _, slots, _) = keys.shape, rows.shape
    packs = dim * keys.dtype.itemsize // _PACK
    for to, source in ((keys, rows.key_rows), (values, rows.value_rows)):
        launch(
            compiled("core/append.cu", "read_rows", page=rows.page),
            (-(-tokens * packs // 256), batch * heads),
            256,
            slots=source,
            table=rows.block_table,
            rows=to,
            spans=spans,
            num_kv_heads=heads,
            packs=packs,
            tokens=np.int64(tokens),
            num_slots=np.int64(slots),
        )


def advance_spans(spans: Any, status: Any, tokens: int, num_slots: int) -> None:
    """Lengthen every span by `tokens` where it fits in `num_slots`, else set status bit 0."""
    launch(
        compiled("core/append.cu", "advance_spans"),
        (-(-len(spans) // 128),),
        128,
        spans=spans,
        status=status,
        sequences=len(spans),
        tokens=np.int64(tokens),
        num_slots=np.int64(num_slots),
    )


def lengthened(array: Any, axis: int, size: int) -> Any:
    """A copy of `array` with `size` entries along `axis`: its own, then zeros."""
    cupy, shape = import_module("cupy"), list(array.shape)
    shape[axis] = size
    longer = cupy.zeros(shape, dtype=array.dtype)
    cupy.moveaxis(longer, axis, 0)[: array.shape[axis]] = cupy.moveaxis(array, axis, 0)
    return longer
