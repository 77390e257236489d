"""What a method keeps beside keys and values: arrays of one entry per token, or sums over tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from socket_theory.core.backend import Backend
from socket_theory.core.rows import Rows


@dataclass(frozen=True, eq=False)
class Index:
    """Arrays of B sequences by name, which `Method.index` makes of rows. An index of your own is a frozen
    dataclass that derives from this class.

    Parameters
    ----------
    arrays : dict of arrays [B, ...]
    frozen : dict of arrays [B, ...]
        What was measured on the tokens of `prepare`, or passed to it, and stays as it is for tokens appended later,
        such as the offset of `Socket(center_keys=True)`.
    """

    arrays: Mapping[str, Any] = field(default_factory=dict)
    frozen: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kept in (self.arrays, self.frozen):
            if not isinstance(kept, Mapping):
                raise TypeError(f"an index of {type(kept).__name__} was made: pass dicts of arrays by name.")
        for array in (*self.arrays.values(), *self.frozen.values()):
            if isinstance(array, np.ndarray):
                array.setflags(write=False)

    @property
    def nbytes(self) -> int:
        return sum(int(array.nbytes) for array in (*self.arrays.values(), *self.frozen.values()))

    def append(self, new: Self, rows: Rows, count: int) -> Self:
        """This index of `rows`, with that of `count` new tokens behind the valid ones of each sequence."""
        raise NotImplementedError(f"{type(self).__name__} must define append.")

    def truncate(self, lengths: Any) -> Self:
        """The index of the first lengths [B] valid tokens of each sequence."""
        raise NotImplementedError(f"{type(self).__name__} must define truncate.")

    def undo(self, before: Self, undone: Any, lengths: Any) -> Self:
        """This index with its last append undone for the sequences `undone`, bool [B]; `before` is that without it.

        `lengths` [B] are the valid tokens that are left of each sequence.
        """
        return self.truncate(lengths)

    def take(self, order: Any, backend: Backend) -> Self:
        """The index of the sequences `order`, in that order."""
        arrays, frozen = (
            {name: backend.take(array, order) for name, array in kept.items()} for kept in (self.arrays, self.frozen)
        )
        return replace(self, arrays=arrays, frozen=frozen)

    def bytes_per_token(self) -> int:
        """Bytes stored for a token of a sequence, its KV heads together."""
        return 0

    def bytes_per_step(self) -> int:
        """Bytes that a step reads of a sequence, however many tokens it has."""
        return 0


@dataclass(frozen=True, eq=False)
class TokenIndex(Index):
    """Arrays [B, Hkv, ..., N] with an entry per token slot: an append writes behind the valid tokens."""

    def append(self, new: Self, rows: Rows, count: int) -> Self:
        arrays = {
            name: rows.backend.write(array, new.arrays[name], rows.ends, rows.capacity, -1)
            for name, array in self.arrays.items()
        }
        return replace(self, arrays=arrays)

    def truncate(self, lengths: Any) -> Self:
        return self

    def bytes_per_token(self) -> int:
        return sum(int(array[0].nbytes) // array.shape[-1] for array in self.arrays.values())


@dataclass(frozen=True, eq=False)
class SumIndex(Index):
    """Sums over tokens, arrays [B, Hkv, ...] of any shape: an append adds to them, and no token can be forgotten."""

    def append(self, new: Self, rows: Rows, count: int) -> Self:
        return replace(self, arrays={name: array + new.arrays[name] for name, array in self.arrays.items()})

    def truncate(self, lengths: Any) -> Self:
        raise ValueError(
            "the index holds sums over tokens, from which none can be taken away: "
            "keep the cache from before the append."
        )

    def undo(self, before: Self, undone: Any, lengths: Any) -> Self:
        arrays = {
            name: np.where(undone.reshape(-1, *[1] * (array.ndim - 1)), before.arrays[name], array)
            for name, array in self.arrays.items()
        }
        return replace(self, arrays=arrays)

    def bytes_per_step(self) -> int:
        return sum(int(array[0].nbytes) for array in self.arrays.values())
