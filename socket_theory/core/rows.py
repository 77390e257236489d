"""Keys and values of a batch of sequences, whoever owns them, and which of their slots are valid tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from socket_theory.core.backend import Backend


class Rows:
    """What all kinds of rows have: B sequences of N token slots each, with Hkv KV heads.

    Attributes
    ----------
    keys, values : arrays [B, Hkv, N, D] and [B, Hkv, N, E]
        Of pages, gathered copies.
    kv_range : int64 array [B, 2]
        (kv_start, kv_len) of each sequence: its valid tokens are the slots kv_start to kv_start + kv_len - 1.
    backend : Backend
        What computes with the arrays. `Method.prepare` sets it, and kv_range.
    shape, value_dim, dtypes
        (B, Hkv, N, D), E, and the dtypes of keys and of values.
    capacity : int or None
        Slots whose memory is reserved.
    """

    if TYPE_CHECKING:
        kv_range: Any
        backend: Any
        capacity: int | None

        @property
        def keys(self) -> Any:
            """Keys [B, Hkv, N, D]."""

        @property
        def values(self) -> Any:
            """Values [B, Hkv, N, E]."""

        @property
        def shape(self) -> tuple[int, int, int, int]:
            """(B, Hkv, N, D)."""

        @property
        def value_dim(self) -> int:
            """E."""

        @property
        def dtypes(self) -> tuple[Any, Any]:
            """The dtypes of keys and of values."""

        @property
        def nbytes(self) -> int:
            """Bytes of keys and values."""

        def read(self, row: int, kv_head: int, slots: Any) -> tuple[Any, Any]:
            """Keys [K, D] and values [K, E] of `slots`, a slice or integers [K], of one sequence and KV head."""

    @property
    def ends(self) -> Any:
        """The slot behind the last valid token of each sequence, int64 [B]."""
        return self.kv_range.sum(axis=1)

    def bind(self, kv_range: Any, backend: Backend) -> Self:
        """The same rows with their valid slots and their backend."""
        return replace(self, kv_range=kv_range, backend=backend)  # type: ignore[type-var]

    def with_capacity(self, capacity: int | None) -> Self:
        """The same rows, for at most so many slots."""
        return replace(self, capacity=capacity)  # type: ignore[type-var]

    def stored(self, capacity: int | None) -> Self:
        """What a cache keeps: copies with room for `capacity` slots of rows that it is to own, else these."""
        return self

    def truncate(self, lengths: Any) -> Self:
        """The same rows, of which the first lengths [B] valid tokens of each sequence are left."""
        return self.bind(np.stack([self.kv_range[:, 0], lengths], axis=1), self.backend)

    def append(self, new: Rows, count: int) -> Self:
        """Rows with `count` tokens of `new` behind each sequence's valid ones."""
        raise NotImplementedError

    def take(self, order: Any) -> Self:
        """Rows of the sequences `order`, in that order."""
        raise NotImplementedError

    def _longer(self, count: int) -> Any:
        return self.kv_range + np.array([0, count])


class ArrayRows(Rows):
    """Rows whose keys and values are one array each."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        batch, heads, slots, dim = self.keys.shape
        return batch, heads, slots, dim

    @property
    def value_dim(self) -> int:
        return int(self.values.shape[-1])

    @property
    def dtypes(self) -> tuple[Any, Any]:
        return self.keys.dtype, self.values.dtype

    @property
    def nbytes(self) -> int:
        return int(self.keys.nbytes) + int(self.values.nbytes)

    def read(self, row: int, kv_head: int, slots: Any) -> tuple[Any, Any]:
        at = slots if isinstance(slots, slice) else self.backend.to_device(slots)
        return self.keys[row, kv_head, at], self.values[row, kv_head, at]


@dataclass(frozen=True, eq=False)
class DenseRows(ArrayRows):
    """Copies that a cache owns: keys [B, Hkv, N, D], values [B, Hkv, N, E]; an append writes behind the valid tokens.

    `capacity` is the number of slots whose memory is reserved, or None.
    """

    keys: Any
    values: Any
    kv_range: Any = None
    backend: Any = None
    capacity: int | None = None

    def __post_init__(self) -> None:
        for array in (self.keys, self.values):
            if isinstance(array, np.ndarray):
                array.setflags(write=False)

    def stored(self, capacity: int | None) -> Self:
        keys, values = (self.backend.store(array, capacity) for array in (self.keys, self.values))
        return replace(self, keys=keys, values=values, capacity=capacity)

    def append(self, new: Rows, count: int) -> Self:
        write, ends = self.backend.write, self.ends
        keys, values = (
            write(mine, theirs, ends, self.capacity, -2)
            for mine, theirs in ((self.keys, new.keys), (self.values, new.values))
        )
        return replace(self, keys=keys, values=values, kv_range=self._longer(count))

    def take(self, order: Any) -> Self:
        keys, values = (self.backend.take(array, order) for array in (self.keys, self.values))
        return replace(self, keys=keys, values=values, kv_range=self.kv_range[order])


@dataclass(frozen=True, eq=False)
class NoRows(Rows):
    """What is left of rows for a method that keeps none: their shape and how many tokens were seen."""

    shape: tuple[int, int, int, int]
    value_dim: int
    dtypes: tuple[Any, Any]
    kv_range: Any
    backend: Any
    capacity: int | None = None
    nbytes: int = 0

    @property
    def keys(self) -> Any:
        raise ValueError("the cache keeps an index and no rows: it has neither keys nor values.")

    values = keys

    @classmethod
    def of(cls, rows: Rows) -> NoRows:
        return cls(rows.shape, rows.value_dim, rows.dtypes, rows.kv_range, rows.backend, rows.capacity)

    def append(self, new: Rows, count: int) -> NoRows:
        batch, heads, slots, dim = self.shape
        longest = max(slots, int(self.ends.max()) + count)
        return replace(self, shape=(batch, heads, longest, dim), kv_range=self._longer(count))

    def take(self, order: Any) -> NoRows:
        return replace(self, shape=(len(order), *self.shape[1:]), kv_range=self.kv_range[order])
