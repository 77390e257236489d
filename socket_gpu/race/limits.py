"""Which arrays the kernels of RACE take, told from their shapes before anything is launched."""

from __future__ import annotations

from typing import Any

from socket_gpu.core._launch import MOST_ROWS, checked, compute_capability, shared_memory_limit
from socket_gpu.race.buckets import (
    HEAD_DIMS,
    MOST_FEATURES,
    MOST_PLANES,
    PARTS,
    BucketLayout,
    SharedMemory,
    bucket_layout,
    tile_size,
)
from socket_theory.core.checks import require_head_ratio
from socket_theory.race.operations import SequenceShape

DTYPES = ("bfloat16", "float16", "float32")
_LEAST_CAPABILITY = 80


def require_shape(shape: SequenceShape) -> None:
    """Nothing if there are kernels for arrays of this shape on the current device.

    Raises
    ------
    TypeError, ValueError
        Naming what was given and what to pass.
    """
    if shape.dtype not in DTYPES:
        raise TypeError(f"query, keys and values have dtype {shape.dtype}: pass {', '.join(DTYPES)}.")
    if not len(shape.query) == len(shape.keys) == len(shape.values) == 4 or len(shape.planes) != 3:
        raise ValueError(
            f"query {shape.query}, keys {shape.keys}, values {shape.values} and planes {shape.planes} were given: "
            "pass [B, Hq, T, D], [B, Hkv, N, D], [B, Hkv, N, D] and [L, P, D]."
        )
    (batch, num_heads, asked, head_dim), (tables, planes, width) = shape.query, shape.planes
    if any(size == 0 for size in (*shape.query, *shape.keys, *shape.planes)):
        raise ValueError(
            f"query {shape.query}, keys {shape.keys} and planes {shape.planes} were given: pass no axis of 0."
        )
    if shape.keys != shape.values or shape.keys[0] != batch or not head_dim == shape.keys[3] == width:
        raise ValueError(
            f"query {shape.query}, keys {shape.keys}, values {shape.values} and planes {shape.planes} do not fit: "
            "pass [B, Hq, T, D], [B, Hkv, N, D], [B, Hkv, N, D] and [L, P, D]."
        )
    require_head_ratio(num_heads, shape.keys[1])
    if head_dim not in HEAD_DIMS:
        raise ValueError(
            f"vectors of length {head_dim} were given: pass a head_dim of {' or '.join(map(str, HEAD_DIMS))}."
        )
    if planes * tables > MOST_PLANES or tables * 2**planes > MOST_FEATURES:
        raise ValueError(
            f"{tables} tables of {planes} planes were given: pass at most {MOST_PLANES} planes in all and "
            f"{MOST_FEATURES} features, num_tables * 2**num_planes."
        )
    if shape.causal and asked != shape.keys[2]:
        raise ValueError(f"{asked} causal queries were given for {shape.keys[2]} keys: pass as many of both.")
    if batch * num_heads > MOST_ROWS:
        raise ValueError(f"{batch * num_heads} sequences times heads were given: pass at most {MOST_ROWS} at once.")
    _require_device(shape)


def _require_device(shape: SequenceShape) -> None:
    capability, limit, needed = compute_capability(), shared_memory_limit(), shared_bytes(shape)
    if capability < _LEAST_CAPABILITY:
        raise ValueError(
            f"this device has compute capability {capability / 10}: run on one of {_LEAST_CAPABILITY / 10} or more, "
            "whose tensor cores multiply bfloat16."
        )
    if needed > limit:
        raise ValueError(
            f"{shape.planes[0]} tables of {shape.planes[1]} planes need {needed} bytes of shared memory with a head_dim"
            f" of {shape.planes[2]} in {shape.dtype}{' and causal' * shape.causal}, and this device has {limit}: pass "
            "fewer planes, or bfloat16."
        )


def shared_bytes(shape: SequenceShape) -> int:
    """The most that a block of any of the kernels needs."""
    layout, head_dim = layout_of(shape), int(shape.planes[2])
    memory, causal = SharedMemory(layout, head_dim, shape.dtype, PARTS), shape.causal
    return max(
        memory.bucket_sums(), *(walk(causal) for walk in (memory.read, memory.query_gradient, memory.key_gradient))
    )


def layout_of(shape: SequenceShape) -> BucketLayout:
    """The order of the features of these planes."""
    tables, planes, _ = shape.planes
    return bucket_layout(int(planes), int(tables))


def tile_of(shape: SequenceShape) -> int:
    """Tokens whose sums are kept, of keys and of queries."""
    return tile_size(_tokens(shape), shape.keys[0] * shape.keys[1], layout_of(shape), shape.causal)


def sums_shape(shape: SequenceShape) -> tuple[int, ...]:
    """Of the weighted sums over tiles: [B Hkv, tiles + 1, F, D].

    Keys and queries have the same number of tiles, by which the kernels of both find their place; those behind the last
    token are empty.
    """
    tiles = -(-_tokens(shape) // tile_of(shape))
    return shape.keys[0] * shape.keys[1], tiles + 1, layout_of(shape).features, int(shape.planes[2])


def _tokens(shape: SequenceShape) -> int:
    return max(shape.query[2], shape.keys[2])


def checked_heads(name: str, array: Any, dtype: str | None = None, shape: tuple[int, ...] | None = None) -> Any:
    """`array` if it is a CuPy array [B, H, N, D] as the kernels read it: rows at multiples of 16 bytes, elements side
    by side.

    Raises
    ------
    TypeError, ValueError
        As `checked`, and for other strides.
    """
    checked(name, array, dtype, shape, alignment=16, contiguous=False)
    between = [stride for stride, size in zip(array.strides[:-1], array.shape, strict=False) if size > 1]
    if array.strides[-1:] != (array.itemsize,) or any(stride % 16 for stride in between):
        raise ValueError(
            f"{name} has strides of {array.strides} bytes, and rows have to start at multiples of 16 bytes with their "
            f"elements side by side: pass cupy.ascontiguousarray({name})."
        )
    return array
