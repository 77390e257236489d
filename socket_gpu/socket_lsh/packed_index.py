"""SOCKET's index on a GPU: packed codes, whose lanes new tokens are turned for, and norms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Self

import numpy as np

from socket_gpu.core.append import lengthened
from socket_gpu.socket_lsh.codes import LANES, CodeLayout
from socket_theory.core.index import TokenIndex
from socket_theory.core.rows import Rows


@dataclass(frozen=True, eq=False)
class PackedIndex(TokenIndex):
    """Codes [B, Hkv, blocks, rings, P, 32], and with value norms those of 32 slots a block, [B, Hkv, 32 blocks].

    An append that fits writes in place.
    """

    def append(self, new: Self, rows: Rows, count: int) -> Self:
        arrays, ends = dict(self.arrays), np.asarray(rows.ends)
        held, needed = arrays["codes"].shape[2], int(ends.max()) + count
        if needed > min(rows.shape[2], LANES * held):
            blocks = max(held, -(-needed // LANES))
            sizes = {"codes": blocks, "value_norms": LANES * blocks}
            arrays = {name: lengthened(array, 2, sizes[name]) for name, array in arrays.items()}
        for row, end in enumerate(ends.tolist()):
            _write_codes(arrays["codes"][row], new.arrays["codes"][row], end, count)
            if "value_norms" in arrays:
                arrays["value_norms"][row, :, end : end + count] = new.arrays["value_norms"][row, :, :count]
        return replace(self, arrays=arrays)

    def bytes_per_token(self) -> int:
        slots = LANES * self.arrays["codes"].shape[2]
        return sum(int(array[0].nbytes) // slots for array in self.arrays.values())


def _write_codes(codes: Any, new: Any, end: int, added: int) -> None:
    """Turn the first `added` tokens of `new` for the lanes behind slot `end`, and write them there."""
    cupy = import_module("cupy")
    layout = CodeLayout(LANES * codes.shape[2], codes.shape[3])
    straight = cupy.pad(layout.unpack(new, added, cupy), ((0, 0), (0, 0), (end % LANES, 0)))
    source, to = cupy.arange(end % LANES, end % LANES + added), cupy.arange(end, end + added)
    packed = layout.pack(straight, cupy)
    codes[:, to // LANES, :, :, to % LANES] = packed[:, source // LANES, :, :, source % LANES]
