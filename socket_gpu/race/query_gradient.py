"""Launch of query_gradient.cu: gradients of queries from sums over the buckets of the keys that they see."""

from __future__ import annotations

from typing import Any

from socket_gpu.core._compile import compiled
from socket_gpu.core._launch import element, launch
from socket_gpu.race.arrays import Attention, TileSums, heads
from socket_gpu.race.buckets import PARTS, THREADS, SharedMemory


def query_gradient_into(
    d_query: Any, rows: Any, of_beta: Any, of: Attention, above: Any, sums: TileSums, causal: bool
) -> None:
    """d_query [B, Hq, T, D] for the outputs' gradient `above` of that shape; what `key_gradient_into` needs of queries,
    rows float32 [B * Hq, T, 2]; and of_beta float32 [B * Hq, tiles of queries], which add up to beta's gradient."""
    layout = of.layout
    kernel = compiled(
        "race/query_gradient.cu",
        "query_gradient",
        element(of.query),
        **layout.settings(of.head_dim, PARTS),
        causal=causal,
    )
    launch(
        kernel,
        (int(of_beta.shape[1]), int(of_beta.shape[0])),
        THREADS,
        SharedMemory(layout, of.head_dim, of.query.dtype, PARTS).query_gradient(causal),
        query=heads(of.query),
        keys=heads(of.keys),
        values=heads(of.values),
        above=heads(above),
        d_query=heads(d_query),
        planes=of.planes,
        beta=of.beta,
        sums=sums.params(),
        rows=rows,
        of_beta=of_beta,
        tokens=int(of.query.shape[2]),
        tile=sums.tile,
        tiles=sums.tiles,
        num_heads=int(of.query.shape[1]),
        heads_each=of.group,
    )
