"""Exact attention over index lists, split and merged."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.core._compile import compiled
from socket_gpu.core._launch import element, launch
from socket_gpu.core.rows import DeviceRows

RESIDENT_BLOCKS = 4 * 132
_BLOCKS_A_SM = 4
_STATES = 47 * 1024


@dataclass(frozen=True)
class Block:
    """How a block attends: `lanes` of a warp read a row as `packs` of 16 bytes each, and so many `threads` fit."""

    packs: int
    lanes: int
    threads: int

    @classmethod
    def of(cls, keys: Any, heads: int, dtype: Any) -> Block:
        """For lists that so many query heads share, with states of `dtype`.

        Raises
        ------
        ValueError
            For a head_dim whose rows are not 16 bytes times a power of two, or so many heads a list that their states
            do not fit in shared memory.
        """
        dim, size = keys.shape[-1], keys.dtype.itemsize
        pieces = dim * size // 16
        if dim * size % 16 or pieces & (pieces - 1):
            raise ValueError(f"head_dim={dim} of {keys.dtype} was given: pass 64, 128 or 256.")
        lanes = min(pieces, 32)
        # Partial states of the warps of a block share 48 KB.
        state = heads * (dim + 2) * np.dtype(dtype).itemsize
        if state > _STATES:
            raise ValueError(
                f"{heads} query heads of head_dim={dim} share a list: pass a budget with per='query_head'."
            )
        return cls(pieces // lanes, lanes, 32 * max(1, min(8, 1 << (_STATES // state).bit_length() - 1)))


@dataclass(frozen=True, eq=False)
class AttendBuffers:
    """Partial states of `splits` pieces of every list, and tickets, zero between steps."""

    partial: Any
    tickets: Any
    splits: int
    block: Block

    @classmethod
    def empty(cls, rows: int, heads: int, keys: Any, splits: int, dtype: Any) -> AttendBuffers:
        """For lists `rows` of keys [..., D] that so many query heads share. Raises as `Block.of`."""
        cupy, block = import_module("cupy"), Block.of(keys, heads, dtype)
        partial = cupy.empty((rows, splits, heads, keys.shape[-1] + 2), dtype=dtype)
        return cls(partial, cupy.zeros(rows, dtype=np.uint32), splits, block)


def attend_into(
    output: Any,
    lse: Any,
    query: Any,
    rows: DeviceRows,
    indices: Any,
    lengths: Any,
    sm_scale: float,
    buffers: AttendBuffers,
    status: Any = None,
) -> None:
    """Exact attention of query [B, Hq, D] over lists [rows, K]: rows are query heads, or KV heads for a shared set."""
    (batch, num_kv_heads, slots, dim), block = rows.shape, buffers.block
    heads_a_list = buffers.partial.shape[2]
    kernel = compiled(
        "core/attend.cu",
        "attend",
        element(rows.keys),
        element(query),
        element(output),
        head_dim=dim,
        page=rows.page,
        heads=heads_a_list,
        lanes=block.lanes,
        packs=block.packs,
        threads=block.threads,
        blocks_a_sm=_BLOCKS_A_SM if heads_a_list == 1 else 1,
    )
    launch(
        kernel,
        (buffers.splits, len(indices)),
        block.threads,
        query=query,
        keys=rows.key_rows,
        values=rows.value_rows,
        table=rows.block_table,
        indices=indices,
        lengths=lengths,
        partial=buffers.partial,
        tickets=buffers.tickets,
        status=status,
        output=output,
        lse=lse,
        slots=slots,
        max_kept=indices.shape[-1],
        num_kv_heads=num_kv_heads,
        lists_a_pair=len(indices) // (batch * num_kv_heads),
        sm_scale=buffers.partial.dtype.type(sm_scale),
    )
