"""The index beside the keys: packed codes and value norms. One function a kernel.

Shapes: B sequences, Hq query heads, Hkv KV heads, N slots; spans int64 [B, 2] on the device.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from socket_gpu.core._compile import compiled
from socket_gpu.core._launch import current_device, element, launch, settle
from socket_gpu.socket_lsh.codes import CodeLayout
from socket_theory.core.hashing import Planes

_MATRICES: WeakKeyDictionary[Planes, dict[int, Any]] = WeakKeyDictionary()
_FRAGMENTS: WeakKeyDictionary[Planes, dict[int, Any]] = WeakKeyDictionary()


def hash_matrix(planes: Planes) -> Any:
    """The hash kernel's matrix of these planes, made once a device."""
    made, device = _MATRICES.setdefault(planes, {}), current_device()
    if device not in made:
        made[device] = _hash_matrix(CodeLayout(planes.num_tables, planes.num_planes), planes)
        settle()  # other streams use it too
    return made[device]


def plane_fragments(planes: Planes) -> Any:
    """These planes as the scorer's matrix fragments, uint32 [row tiles, D / 16, 32 lanes, 4], made once a device.

    Row l * P + p is plane p of table l. Lane 4 r + j holds rows r and r + 8, columns 2 j, 2 j + 1 and 8 more.
    """
    made, device = _FRAGMENTS.setdefault(planes, {}), current_device()
    if device not in made:
        flat = bfloat16_bits(planes.weights.reshape(-1, planes.head_dim))
        tiles, steps = -(-len(flat) // 16), -(-planes.head_dim // 16)
        padded = np.zeros((16 * tiles, 16 * steps), dtype=np.uint16)
        padded[: len(flat), : planes.head_dim] = flat
        parts = padded.reshape(tiles, 2, 8, steps, 2, 4, 2).transpose(0, 3, 2, 5, 4, 1, 6)
        words = np.ascontiguousarray(parts).reshape(tiles, steps, 32, 8).view(np.uint32)
        made[device] = import_module("cupy").asarray(words)
        settle()
    return made[device]


def _hash_matrix(layout: CodeLayout, planes: Planes) -> Any:
    """The hash kernel's matrix [32 words, D padded to 16] in bfloat16, from planes."""
    cupy = import_module("cupy")
    dim = -(-planes.head_dim // 16) * 16
    rows = np.zeros((32 * layout.words, dim))
    used = layout.column_planes >= 0
    flat = planes.weights.reshape(-1, planes.head_dim)
    rows[used, : planes.head_dim] = flat[layout.column_planes[used]]
    return cupy.asarray(bfloat16_bits(rows))


def bfloat16_bits(values: Any) -> Any:
    """The bits of float64 values that bfloat16 holds, as uint16; ValueError for others."""
    bits = values.astype(np.float32).view(np.uint32)
    if (bits & np.uint32(0xFFFF)).any():
        raise ValueError("planes hold values that bfloat16 does not: draw them with SignHash.draw(key), which rounds.")
    return (bits >> np.uint32(16)).astype(np.uint16)


def hash_into(
    codes: Any, keys: Any, spans: Any, layout: CodeLayout, matrix: Any, center: Any, capacity: int | None = None
) -> None:
    """Write packed codes of keys [B, Hkv, N, D]: of the slots in each span, or all rows behind it up to `capacity`."""
    batch, heads, rows, dim = keys.shape
    padded = matrix.shape[1]
    append = capacity is not None
    limit = codes.shape[2] * 32 if capacity is None else capacity
    splits = {"bfloat16": 1, "float16": 2}.get(str(keys.dtype), 3) if center is None else 3
    tile = 128 if splits * padded <= 384 else 64
    shared_bytes = 2 * (splits * tile + 64) * (padded + 8) + 4 * tile * (layout.num_planes + 1)
    kernel = compiled(
        "socket_lsh/hash_keys.cu",
        "hash_keys",
        element(keys),
        head_dim=dim,
        splits=splits,
        centred=center is not None,
        tile=tile,
        tables=layout.num_tables,
        planes=layout.num_planes,
    )
    launch(
        kernel,
        (-(-rows // tile), batch * heads),
        tile,
        shared_bytes,
        keys=keys,
        planes=matrix,
        center=center,
        codes=codes,
        spans=spans,
        num_kv_heads=heads,
        slot_blocks=codes.shape[2],
        key_slots=np.int64(rows),
        capacity=np.int64(limit),
        append=append,
    )


def norms_into(norms: Any, values: Any, spans: Any, *, append: bool = False) -> None:
    """Write |v| as bfloat16 [B, Hkv, N]."""
    batch, heads, rows, dim = values.shape
    launch(
        compiled("socket_lsh/hash_keys.cu", "value_norms", element(values), head_dim=dim),
        (-(-rows // 32), batch * heads),
        256,
        values=values,
        norms=norms,
        spans=spans,
        num_kv_heads=heads,
        value_slots=np.int64(rows),
        norm_slots=np.int64(norms.shape[2]),
        append=append,
    )
