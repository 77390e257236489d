"""How codes are packed on the GPU: 32 tables a ring, turned by a token's lane, so that lanes never meet in a bank."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

LANES = 32
_FIELDS = np.arange(LANES)


@dataclass(frozen=True)
class CodeLayout:
    """Packed codes are uint32 [..., slot blocks, rings, num_planes, 32 lanes]; token n is lane n % 32 of block n // 32.

    A ring is 32 fields of num_planes bits, so num_planes words. Field s of lane j holds table s ^ j of its 32: when all
    lanes of a warp take field s, each is at another table. Fields of tables that do not exist are 0.
    """

    num_tables: int
    num_planes: int

    @property
    def rings(self) -> int:
        return -(-self.num_tables // LANES)

    @property
    def words(self) -> int:
        """Words that hold any bit of a table, before fields are turned."""
        return -(-self.num_tables * self.num_planes // 32)

    @property
    def bits_per_token(self) -> int:
        return 32 * self.rings * self.num_planes

    def slot_blocks(self, slots: int) -> int:
        return -(-slots // LANES)

    @cached_property
    def column_planes(self) -> NDArray[np.int64]:
        """For each column of the hash kernel's matrix, its plane as table * num_planes + plane, or -1 for padding."""
        column = np.arange(32 * self.words)
        bit = column // 8 * 8 + 4 * (column % 2) + column % 8 // 2
        return np.where(bit < self.num_tables * self.num_planes, bit, -1)

    def pack(self, codes: Any, xp: Any = np) -> Any:
        """Reference codes [..., L, N] as packed words; `xp` is numpy or cupy, as the codes are."""
        *lead, tables, slots = codes.shape
        blocks = self.slot_blocks(slots)
        padded = xp.zeros((*lead, self.rings * LANES, blocks * LANES), dtype=np.uint32)
        padded[..., :tables, :slots] = codes
        turned = self._turn(padded.reshape(*lead, self.rings, LANES, blocks, LANES), xp)
        words = xp.zeros((*lead, self.rings, self.num_planes, blocks, LANES), dtype=np.uint32)
        for field in range(LANES):
            word, place = divmod(field * self.num_planes, 32)
            words[..., word, :, :] |= turned[..., field, :, :] << np.uint32(place)
            if place + self.num_planes > 32:
                words[..., word + 1, :, :] |= turned[..., field, :, :] >> np.uint32(32 - place)
        return xp.ascontiguousarray(xp.moveaxis(words, -2, -4))

    def unpack(self, words: Any, slots: int, xp: Any = np) -> Any:
        """The inverse of `pack`: uint16 [..., L, N]."""
        rings = xp.moveaxis(words, -4, -2)
        fields = xp.zeros((*rings.shape[:-3], LANES, *rings.shape[-2:]), dtype=np.uint32)
        for field in range(LANES):
            word, place = divmod(field * self.num_planes, 32)
            fields[..., field, :, :] = rings[..., word, :, :] >> np.uint32(place)
            if place + self.num_planes > 32:
                fields[..., field, :, :] |= rings[..., word + 1, :, :] << np.uint32(32 - place)
        fields &= np.uint32((1 << self.num_planes) - 1)
        codes = self._turn(fields, xp)
        flat = codes.reshape(*codes.shape[:-4], self.rings * LANES, -1)
        return flat[..., : self.num_tables, :slots].astype(np.uint16)

    def _turn(self, fields: Any, xp: Any) -> Any:
        """[..., 32 fields, blocks, 32 lanes] with field s and table s ^ lane exchanged, which undoes itself."""
        order = xp.asarray(_FIELDS[:, None] ^ _FIELDS)[:, None, :]
        return xp.take_along_axis(fields, order.reshape((1,) * (fields.ndim - 3) + order.shape), axis=-3)
