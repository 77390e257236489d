"""What the kernels of RACE take: heads with strides, sums with their tiles, the arrays of one attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from socket_gpu.core._launch import struct
from socket_gpu.race.buckets import BucketLayout


def heads(array: Any) -> Any:
    """The struct `Heads` of an array [B, H, N, D] whose last axis is contiguous, and whose rows are aligned."""
    steps = (np.int64(stride // array.itemsize) for stride in array.strides[:3])
    return struct(base=np.uint64(array.data.ptr), **dict(zip(("sequence", "head", "token"), steps, strict=True)))


@dataclass(frozen=True, eq=False)
class TileSums:
    """mass [B * Hkv, tiles + 1, F] and weighted [B * Hkv, tiles + 1, F, D], float32 in the kernels' order of features.

    Place i < tiles holds the sums over tile i of `tile` tokens at first, then over all tiles before it, or behind it;
    the last place those over all.
    """

    mass: Any
    weighted: Any
    tile: int

    @property
    def tiles(self) -> int:
        return int(self.mass.shape[1]) - 1

    def params(self) -> Any:
        """The struct `Sums`."""
        return struct(mass=self.mass, weighted=self.weighted)


@dataclass(frozen=True, eq=False)
class Attention:
    """query [B, Hq, T, D], keys and values [B, Hkv, N, D] of one dtype, planes float32 [L, P, D], beta float32 []."""

    query: Any
    keys: Any
    values: Any
    planes: Any
    beta: Any
    layout: BucketLayout

    @property
    def head_dim(self) -> int:
        return int(self.query.shape[3])

    @property
    def group(self) -> int:
        """Query heads of a KV head."""
        return int(self.query.shape[1] // self.keys.shape[1])

    @property
    def num_pairs(self) -> int:
        """Sequences times KV heads."""
        return int(self.keys.shape[0] * self.keys.shape[1])
