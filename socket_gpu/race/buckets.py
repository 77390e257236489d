"""How the kernels of RACE lay out the features of a table's buckets, and what of a sequence they take at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

MOST_PLANES, MOST_FEATURES = 32, 256
HEAD_DIMS = (64, 128)
CHUNK, THREADS = 64, 128
PARTS = 2
"""bfloat16 numbers that a feature, and a sum over a bucket, is taken apart into."""
_WARPS = THREADS // 32
_LIST = 16
_LONGEST_TILE, _TILES = 4096, 2048


@dataclass(frozen=True)
class BucketLayout:
    """Features in the order of the kernels: buckets.cuh says what pieces are.

    free : the planes that tell the buckets of a piece apart; own : pieces of a lane and group; groups : of at most 64
    features. Tables that do not fill the last group leave features that are always 0.
    """

    planes: int
    tables: int
    free: int
    own: int
    groups: int

    @property
    def width(self) -> int:
        """Features of a group."""
        return 4 * self.own << self.free

    @property
    def features(self) -> int:
        return self.groups * self.width

    @property
    def columns(self) -> int:
        """Columns of planes of a group."""
        return 4 * -(-self.own * self.planes // 4) * 4

    def settings(self, head_dim: int, parts: int) -> dict[str, int]:
        """The fields that all kernels' settings begin with."""
        return {
            "head_dim": head_dim,
            "planes": self.planes,
            "tables": self.tables,
            "free": self.free,
            "own": self.own,
            "groups": self.groups,
            "parts": parts,
        }


@cache
def bucket_layout(planes: int, tables: int) -> BucketLayout:
    """The layout with the fewest features that are always 0 and, of those, the largest pieces."""
    found = [_layout(planes, tables, free) for free in range(min(planes, 4) + 1)]
    return min(found, key=lambda layout: (layout.features, -layout.free))


def _layout(planes: int, tables: int, free: int) -> BucketLayout:
    pieces, least = tables << (planes - free), max(4 >> free, 1)
    own = min(-(-pieces // (4 * least)) * least, _LIST >> free)
    return BucketLayout(planes, tables, free, own, -(-pieces // (4 * own)))


def tile_size(tokens: int, heads: int, layout: BucketLayout, causal: bool) -> int:
    """Tokens whose sums are kept: enough tiles for a GPU and few enough that their sums take little memory."""
    if causal and layout.groups > 1:  # sums that grow with a chunk do not fit in registers
        return CHUNK
    return min(max(tokens * heads // _TILES // CHUNK * CHUNK, CHUNK), _LONGEST_TILE)


def parts_of(dtype: Any) -> int:
    """bfloat16 numbers that one of `dtype` is taken apart into."""
    return 1 if str(dtype) == "bfloat16" else 2


def vector_parts_of(dtype: Any) -> int:
    """The same for what is projected on planes, of which nothing is left out."""
    return 3 if str(dtype) == "float32" else parts_of(dtype)


def _floats(count: int) -> int:
    """Bytes of that many, as they are given out."""
    return -(-count // 32) * 128


@dataclass(frozen=True)
class SharedMemory:
    """Bytes of a block's shared memory, piece by piece as walk.cuh takes them."""

    layout: BucketLayout
    head_dim: int
    dtype: Any
    feature_parts: int

    @property
    def rows(self) -> int:
        """Of 64 tokens' values, or the gradients of their outputs."""
        return parts_of(self.dtype) * CHUNK * self.head_dim * 2

    @property
    def vectors(self) -> int:
        """Of 64 tokens' queries, or keys."""
        return vector_parts_of(self.dtype) * CHUNK * self.head_dim * 2

    @property
    def featured(self) -> int:
        """Of 64 tokens' queries, or keys, in whose first part's place their features can be."""
        return vector_parts_of(self.dtype) * self._one_featured

    @property
    def weights(self) -> int:
        """Of a group's planes."""
        return 2 * self.layout.columns * self.head_dim * 2

    def bucket_sums(self) -> int:
        return self.weights + self.featured + self.rows + _floats(CHUNK)

    def read(self, causal: bool) -> int:
        return self._walk(causal, causal) + self.vectors + (self.rows if causal else 0)

    def query_gradient(self, causal: bool) -> int:
        return self._walk(causal, causal) + self.vectors + (2 if causal else 1) * self.rows + _floats(_WARPS)

    def key_gradient(self, causal: bool) -> int:
        walk = self._walk(causal, False) + _floats(CHUNK) + _floats(_WARPS)
        return walk + self.featured + (2 if causal else 1) * self.rows

    def _walk(self, causal: bool, separate: bool) -> int:
        """Of planes, sums as an operand, the vectors that turn into features and, where each group needs the vectors
        again, features of their own."""
        operand = self.feature_parts * self.layout.width * self.head_dim * 2
        added = self.featured if causal else 0
        if separate and self.layout.groups > 1:
            added += self._one_featured
        return self.weights + operand + _floats(self.layout.width) + _floats(CHUNK) + added

    @property
    def _one_featured(self) -> int:
        row = -(-self.layout.width * self.feature_parts // 64) * 64  # chunks are swapped within 128 bytes
        return CHUNK * max(self.head_dim, row) * 2
