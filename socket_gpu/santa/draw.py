"""Exact scores by tiles, and values drawn by them.

Shapes: B sequences, Hq query heads, Hkv KV heads, N slots, T tiles; spans int64 [B, 2] on the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.core._compile import compiled
from socket_gpu.core._launch import element, launch, multiprocessors, shared_memory_limit
from socket_gpu.core.rows import DeviceRows
from socket_theory.core.rng import Key
from socket_theory.santa.estimator import Santa

_SCORE_THREADS, _DRAW_THREADS = 64, 512
_CARRIED_TILE, _LONGEST_TILE = 128, 1024
_RUN = 128
_MOST_GROUP = 8
_RESIDENT = 2
_STATIC = 9 * 1024


@dataclass(frozen=True)
class TileShape:
    """What both kernels are compiled for."""

    head_dim: int
    group: int
    tile_len: int

    @classmethod
    def of(cls, shape: tuple[int, int, int, int], dtype: Any, group: int, method: Santa) -> TileShape:
        """For keys of shape (B, Hkv, N, D), `group` query heads a KV head; TypeError or ValueError as SantaPlan.

        The draws of "phase_carried" do not depend on tiles (N9), so those have the length that is fastest.
        """
        (_, _, slots, dim), tile_len = shape, method.tile_len if method.sampler == "flash" else _CARRIED_TILE
        if str(dtype) not in ("float16", "bfloat16"):
            raise TypeError(f"keys have dtype {dtype}: pass float16 or bfloat16.")
        if dim not in (64, 128):
            raise ValueError(f"head_dim={dim} was given: pass 64 or 128.")
        if group > _MOST_GROUP:
            raise ValueError(f"{group} query heads a KV head were given: pass at most {_MOST_GROUP}.")
        if tile_len is None or tile_len % 32 or tile_len > _LONGEST_TILE:
            raise ValueError(f"tile_len={tile_len} was given: pass a multiple of 32, at most {_LONGEST_TILE}.")
        if _edge_bytes(-(-slots // tile_len)) + _STATIC > shared_memory_limit():
            most = (shared_memory_limit() - _STATIC) // 264 * 32 * tile_len
            raise ValueError(f"{slots} slots were given in tiles of {tile_len}: pass at most {most}.")
        return cls(dim, group, tile_len)


@dataclass(frozen=True, eq=False)
class DrawBuffers:
    """Partial sums of `splits` pieces of every head's draws, and tickets, zero between steps."""

    partial: Any
    tickets: Any

    @classmethod
    def empty(cls, rows: int, head_dim: int, draws: int) -> DrawBuffers:
        cupy, warps = import_module("cupy"), _DRAW_THREADS // 32
        splits = max(1, min(_RESIDENT * multiprocessors() // rows, math.ceil(draws / warps)))
        return cls(cupy.empty((rows, splits, head_dim), dtype=np.float32), cupy.zeros(rows, dtype=np.uint32))


def score_tiles_into(
    scores: Any, states: Any, query: Any, rows: DeviceRows, spans: Any, sm_scale: float, shape: TileShape
) -> None:
    """Write scores [B * Hq, T * tile_len] in units of log 2 and states [B * Hq, T, 2] of (m, d)."""
    run = shape.tile_len * max(1, _RUN // shape.tile_len)
    kernel = compiled(
        "santa/tile_scores.cu",
        "score_tiles",
        element(rows.keys),
        head_dim=shape.head_dim,
        page=rows.page,
        group=shape.group,
        tile=shape.tile_len,
        run=run,
        threads=_SCORE_THREADS,
    )
    (batch, num_kv_heads, slots, _), tiles = rows.shape, states.shape[1]
    launch(
        kernel,
        (math.ceil(tiles * shape.tile_len / run * 32 / _SCORE_THREADS), batch * num_kv_heads),
        _SCORE_THREADS,
        query=query,
        keys=rows.key_rows,
        table=rows.block_table,
        spans=spans,
        scores=scores,
        states=states,
        slots=slots,
        tiles=tiles,
        num_kv_heads=num_kv_heads,
        scale=sm_scale / math.log(2),
    )


def draw_values_into(
    outputs: tuple[Any, Any, Any],
    inputs: tuple[Any, Any, DeviceRows, Any],
    method: Santa,
    shape: TileShape,
    randomness: tuple[Key, Any],
    buffers: DrawBuffers,
    status: Any,
) -> None:
    """Write (value [B, Hq, D], lse [B, Hq], draws [B, Hq, M]) from (scores, states, rows, spans), by (key, steps)."""
    (output, lse, draws), (scores, states, rows, spans), (key, steps) = outputs, inputs, randomness
    kernel = compiled(
        "santa/value_draws.cu",
        "draw_values",
        element(rows.values),
        element(output),
        head_dim=shape.head_dim,
        page=rows.page,
        group=shape.group,
        tile=shape.tile_len,
        threads=_DRAW_THREADS,
        flash=method.sampler == "flash",
    )
    (heads, tiles), (low, high) = states.shape[:2], key.words
    launch(
        kernel,
        (buffers.partial.shape[1], heads),
        _DRAW_THREADS,
        _edge_bytes(tiles),
        scores=scores,
        states=states,
        values=rows.value_rows,
        table=rows.block_table,
        spans=spans,
        steps=steps,
        draws=draws,
        partial=buffers.partial,
        tickets=buffers.tickets,
        status=status,
        output=output,
        lse=lse,
        key_low=np.uint64(low),
        key_high=np.uint64(high),
        slots=rows.shape[2],
        tiles=tiles,
        num_qo_heads=output.shape[1],
        num_samples=method.num_samples,
        max_draws=draws.shape[-1],
    )


def _edge_bytes(tiles: int) -> int:
    """Shared memory of the tiles' edges, one more in 32 so that banks are met evenly."""
    return 8 * (tiles + 1 + (tiles + 1) // 32)
