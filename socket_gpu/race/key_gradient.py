"""Launch of key_gradient.cu: gradients of keys and values from sums over the buckets of the queries that see them."""

from __future__ import annotations

from typing import Any

from socket_gpu.core._compile import compiled
from socket_gpu.core._launch import element, launch
from socket_gpu.race.arrays import Attention, TileSums, heads
from socket_gpu.race.buckets import PARTS, THREADS, SharedMemory


def key_gradient_into(
    d_keys: Any, d_values: Any, of_beta: Any, of: Attention, above: Any, rows: Any, sums: TileSums, causal: bool
) -> None:
    """d_keys and d_values [B, Hkv, N, D] from the sums of queries, with `rows` as `query_gradient_into` left it; and
    of_beta float32 [B * Hkv, tiles of keys], which add up to beta's gradient through the keys."""
    layout = of.layout
    kernel = compiled(
        "race/key_gradient.cu",
        "key_gradient",
        element(of.keys),
        **layout.settings(of.head_dim, PARTS),
        causal=causal,
    )
    launch(
        kernel,
        (int(of_beta.shape[1]), int(of_beta.shape[0])),
        THREADS,
        SharedMemory(layout, of.head_dim, of.keys.dtype, PARTS).key_gradient(causal),
        query=heads(of.query),
        keys=heads(of.keys),
        values=heads(of.values),
        above=heads(above),
        d_keys=heads(d_keys),
        d_values=heads(d_values),
        planes=of.planes,
        beta=of.beta,
        sums=sums.params(),
        rows=rows,
        of_beta=of_beta,
        tokens=int(of.keys.shape[2]),
        tile=sums.tile,
        tiles=sums.tiles,
        num_kv_heads=int(of.keys.shape[1]),
        heads_each=of.group,
    )
