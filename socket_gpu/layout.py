"""How codes are packed on the GPU: whole codes in 32-bit words, four words a load, tokens across lanes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

LANES = 32
LOOKUP_BITS = 5
_WORDS4_A_SLAB = 8


@dataclass(frozen=True)
class CodeLayout:
    """The shape of packed codes, uint32 [..., slot blocks, words4, 32 lanes, 4 words], and of their look-up tables."""

    num_tables: int
    num_planes: int

    @property
    def per_word(self) -> int:
        """Codes in a 32-bit word."""
        return 32 // self.num_planes

    @property
    def words(self) -> int:
        return -(-self.num_tables // self.per_word)

    @property
    def words4(self) -> int:
        return -(-self.words // 4)

    @property
    def word_mask(self) -> int:
        return (1 << self.per_word * self.num_planes) - 1

    @property
    def chunks(self) -> int:
        """Look-up tables a code is split over, each of at most 2^5 entries."""
        return -(-self.num_planes // LOOKUP_BITS)

    @property
    def chunk_bits(self) -> int:
        return -(-self.num_planes // self.chunks)

    @property
    def bits_per_token(self) -> int:
        return 128 * self.words4

    def slabs(self) -> list[tuple[int, int, int]]:
        """(first4, words4, tables) of the pieces that one launch of the scorer takes."""
        pieces = []
        for first4 in range(0, self.words4, _WORDS4_A_SLAB):
            words4 = min(_WORDS4_A_SLAB, self.words4 - first4)
            before = first4 * 4 * self.per_word
            pieces.append((first4, words4, min(self.num_tables - before, words4 * 4 * self.per_word)))
        return pieces

    def slot_blocks(self, slots: int) -> int:
        return -(-slots // LANES)

    @cached_property
    def column_planes(self) -> NDArray[np.int64]:
        """For each column of the hash kernel's matrix, its plane as table * num_planes + plane, or -1 for padding."""
        column = np.arange(32 * self.words)
        bit = column // 8 * 8 % 32 + 4 * (column % 2) + column % 8 // 2
        table = column // 32 * self.per_word + bit // self.num_planes
        used = (bit < self.per_word * self.num_planes) & (table < self.num_tables)
        return np.where(used, table * self.num_planes + bit % self.num_planes, -1)

    def pack(self, codes: NDArray[np.uint16]) -> NDArray[np.uint32]:
        """Reference codes [..., L, N] as packed words [..., blocks, words4, 32, 4]."""
        *lead, _, slots = codes.shape
        blocks = self.slot_blocks(slots)
        words = np.zeros((*lead, self.words4 * 4, blocks * LANES), dtype=np.uint32)
        for table in range(self.num_tables):
            place = np.uint32(table % self.per_word * self.num_planes)
            words[..., table // self.per_word, :slots] |= codes[..., table, :].astype(np.uint32) << place
        shaped = words.reshape(*lead, self.words4, 4, blocks, LANES)
        return np.ascontiguousarray(np.moveaxis(shaped, (-2, -4, -1, -3), (-4, -3, -2, -1)))

    def unpack(self, words: NDArray[np.uint32], slots: int) -> NDArray[np.uint16]:
        """The inverse of `pack`: [..., blocks, words4, 32, 4] -> [..., L, N]."""
        flat = np.moveaxis(words, (-4, -3, -2, -1), (-2, -4, -1, -3))
        flat = flat.reshape(*words.shape[:-4], self.words4 * 4, -1)[..., :slots]
        table = np.arange(self.num_tables)
        place = (table % self.per_word * self.num_planes).astype(np.uint32)
        mask = np.uint32((1 << self.num_planes) - 1)
        return ((flat[..., table // self.per_word, :] >> place[:, None]) & mask).astype(np.uint16)

    def macros(self) -> dict[str, Any]:
        """The compile-time constants that every kernel over codes shares."""
        return {
            "ALL_TABLES": self.num_tables,
            "PLANES": self.num_planes,
            "PER_WORD": self.per_word,
            "STRIDE4": self.words4,
            "CHUNKS": self.chunks,
            "CHUNK_BITS": self.chunk_bits,
        }
