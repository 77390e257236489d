"""Exact attention over index lists, split and merged."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu._compile import compiled
from socket_gpu._launch import element, launch

RESIDENT_BLOCKS = 4 * 132
_BLOCKS_A_SM = 4
_STATES = 47 * 1024


@dataclass(frozen=True, eq=False)
class AttendBuffers:
    """Partial states of `splits` pieces of every list, and tickets, zero between steps."""

    partial: Any
    tickets: Any
    splits: int

    @classmethod
    def empty(cls, rows: int, heads: int, head_dim: int, splits: int, dtype: Any) -> AttendBuffers:
        cupy = import_module("cupy")
        partial = cupy.empty((rows, splits, heads, head_dim + 2), dtype=dtype)
        return cls(partial, cupy.zeros(rows, dtype=np.uint32), splits)


def attend_into(
    output: Any,
    lse: Any,
    query: Any,
    keys: Any,
    values: Any,
    indices: Any,
    lengths: Any,
    sm_scale: float,
    buffers: AttendBuffers,
    status: Any = None,
) -> None:
    """Exact attention of query [B, Hq, D] over lists [rows, K]: rows are query heads, or KV heads for a shared set.

    Raises
    ------
    TypeError, ValueError
        For values of another dtype or shape than keys, a head_dim whose rows are not 16 bytes times a power of two, or
        so many heads a list that their states do not fit in shared memory.
    """
    if values.dtype != keys.dtype:
        raise TypeError(f"values have dtype {values.dtype} and keys {keys.dtype}: pass values of the keys' dtype.")
    if values.shape != keys.shape:
        raise ValueError(f"values have shape {values.shape} and keys {keys.shape}: pass values of the keys' head_dim.")
    pairs, heads_a_list = keys.shape[0] * keys.shape[1], query.shape[0] * query.shape[1] // len(indices)
    size = keys.dtype.itemsize
    packs = -(-query.shape[-1] * size // 512)
    lanes = query.shape[-1] * size // 16 // packs
    if query.shape[-1] * size % 16 or lanes & (lanes - 1):
        raise ValueError(f"head_dim={query.shape[-1]} of {keys.dtype} was given: pass 64, 128 or 256.")
    # Partial states of the warps of a block share 48 KB.
    state = heads_a_list * (query.shape[-1] + 2) * buffers.partial.dtype.itemsize
    if state > _STATES:
        raise ValueError(
            f"{heads_a_list} query heads of head_dim={query.shape[-1]} share a list: "
            "pass a budget with group='per_head'."
        )
    threads = 32 * max(1, min(8, 1 << (_STATES // state).bit_length() - 1))
    kernel = compiled(
        "attend.cu",
        "attend",
        KV_T=element(keys),
        OUT=element(output),
        QUERY_T=element(query),
        THREADS=threads,
        HEAD_DIM=query.shape[-1],
        PACKS=packs,
        LANES=lanes,
        UNROLL=2,
        BLOCKS_A_SM=_BLOCKS_A_SM if heads_a_list == 1 else 1,
        HEADS=heads_a_list,
    )
    arguments = [query, keys, values, indices, lengths, buffers.partial, buffers.tickets, status, output, lse]
    arguments += [keys.shape[2], indices.shape[-1], len(indices) // pairs, sm_scale]
    launch(kernel, (buffers.splits, len(indices)), threads, arguments, "lii" + ("d" if size == 8 else "f"))
