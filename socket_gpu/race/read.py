"""Launch of read.cu: outputs of queries from sums over buckets."""

from __future__ import annotations

from typing import Any

from socket_gpu.core._compile import compiled
from socket_gpu.core._launch import element, launch
from socket_gpu.race.arrays import Attention, TileSums, heads
from socket_gpu.race.buckets import PARTS, THREADS, SharedMemory


def read_into(value: Any, of: Attention, sums: TileSums, causal: bool) -> None:
    """Outputs [B, Hq, T, D] from the sums over all keys or, causal, over the tiles before each."""
    layout = of.layout
    kernel = compiled("race/read.cu", "read", element(of.query), **layout.settings(of.head_dim, PARTS), causal=causal)
    launch(
        kernel,
        (-(-of.query.shape[2] // sums.tile), int(of.query.shape[0] * of.query.shape[1])),
        THREADS,
        SharedMemory(layout, of.head_dim, of.query.dtype, PARTS).read(causal),
        query=heads(of.query),
        keys=heads(of.keys),
        values=heads(of.values),
        value=heads(value),
        planes=of.planes,
        beta=of.beta,
        sums=sums.params(),
        tokens=int(of.query.shape[2]),
        tile=sums.tile,
        tiles=sums.tiles,
        num_heads=int(of.query.shape[1]),
        heads_each=of.group,
    )
