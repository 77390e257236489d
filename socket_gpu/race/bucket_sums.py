"""Launches of bucket_sums.cu: sums over the buckets of tiles, and of all tiles before or behind each."""

from __future__ import annotations

from typing import Any

import numpy as np

from socket_gpu.core._compile import compiled
from socket_gpu.core._launch import element, launch
from socket_gpu.race.arrays import Attention, TileSums, heads
from socket_gpu.race.buckets import PARTS, THREADS, SharedMemory

_FILE = "race/bucket_sums.cu"
_ADDERS = 128


def bucket_sums_into(sums: TileSums, of: Attention, vectors: Any, values: Any, rows: Any | None) -> None:
    """Sums over the tiles of keys and values, or of queries and the gradient of their outputs with `rows` for them.

    Shapes: vectors and values [B, H, N, D], H a multiple of Hkv; rows float32 [B * H, N, 2] of 1 / Den and -<g, O>.
    """
    layout, num_kv_heads = of.layout, of.keys.shape[1]
    kernel = compiled(_FILE, "bucket_sums", element(vectors), **layout.settings(of.head_dim, PARTS))
    shared = SharedMemory(layout, of.head_dim, vectors.dtype, PARTS)
    launch(
        kernel,
        (sums.tiles * layout.groups, of.num_pairs),
        THREADS,
        shared.bucket_sums(),
        vectors=heads(vectors),
        values=heads(values),
        planes=of.planes,
        beta=of.beta,
        rows=rows,
        sums=sums.params(),
        tokens=int(vectors.shape[2]),
        tile=sums.tile,
        tiles=sums.tiles,
        num_kv_heads=int(num_kv_heads),
        heads_each=int(vectors.shape[1] // num_kv_heads),
    )


def add_tiles(sums: TileSums, behind: bool) -> None:
    """In the place of every tile's sums those over all tiles before it, or behind it, and those over all at the end."""
    kernel = compiled(_FILE, "add_tiles")
    for array in (sums.mass, sums.weighted):
        elements = int(np.prod(array.shape[2:]))
        grid = -(-elements // _ADDERS), int(array.shape[0])
        launch(kernel, grid, _ADDERS, sums=array, tiles=sums.tiles, elements=elements, behind=behind)
