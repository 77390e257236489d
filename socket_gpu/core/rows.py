"""Rows of keys and values as kernels read them: an array of any strides, or pages with their block table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.core._launch import checked, row_major, struct
from socket_theory.core.owned_elsewhere import PagedRows
from socket_theory.core.rows import Rows

_ALIGNMENT = 16


@dataclass(frozen=True, eq=False)
class DeviceRows:
    """B sequences of N slots: keys and values [blocks, Hkv, S, D], where a block is a sequence, or a page of S slots.

    `table` int32 [B, N / S] names the pages of each sequence; None without pages.
    """

    keys: Any
    values: Any
    table: Any
    shape: tuple[int, int, int, int]
    followed: Any = None
    """The table on the host, as it was last taken over."""

    @classmethod
    def of(cls, rows: Rows) -> DeviceRows:
        """A cache's rows where they are; copied is the block table.

        Raises
        ------
        TypeError, ValueError
            For values of another dtype or head_dim than keys, and rows whose elements are not
            neighbours or that begin between multiples of 16 bytes.
        """
        return cls._of(rows, lambda array: array)

    @classmethod
    def readable(cls, rows: Rows) -> DeviceRows:
        """As `of`, with copies of rows that kernels cannot read where they are."""
        return cls._of(rows, lambda array: array if _is_readable(array) else row_major(array))

    @classmethod
    def _of(cls, rows: Rows, prepare: Callable[[Any], Any]) -> DeviceRows:
        keys, values = map(prepare, _arrays(rows))
        if values.dtype != keys.dtype:
            raise TypeError(f"values have dtype {values.dtype} and keys {keys.dtype}: pass values of the keys' dtype.")
        if values.shape != keys.shape:
            raise ValueError(
                f"values have shape {values.shape} and keys {keys.shape}: pass values of the keys' head_dim."
            )
        for name, array in (("keys", keys), ("values", values)):
            checked(name, array, contiguous=False)
            if not _is_readable(array):
                raise ValueError(
                    f"{name} lie at strides of {array.strides} bytes: pass rows of neighbouring elements that begin at "
                    f"multiples of {_ALIGNMENT} bytes."
                )
        if not isinstance(rows, PagedRows):
            return cls(keys, values, None, rows.shape)
        followed = rows.block_table.astype(np.int32)
        return cls(keys, values, import_module("cupy").asarray(followed), rows.shape, followed)

    @property
    def page(self) -> int:
        """Slots of a page, 0 without pages."""
        return 0 if self.table is None else int(self.keys.shape[2])

    def follow(self, grown: Rows) -> None:
        """Take over the block table of an owner's rows after a change, or ValueError for rows that lie elsewhere."""
        for mine, theirs in zip((self.keys, self.values), _arrays(grown), strict=True):
            if (mine.data.ptr, mine.shape, mine.strides) != (theirs.data.ptr, theirs.shape, theirs.strides):
                raise ValueError(
                    "the rows lie elsewhere than those the step was planned for: plan the cache of these rows anew."
                )
        if isinstance(grown, PagedRows):
            self._follow_table(grown.block_table.astype(np.int32))

    def _follow_table(self, table: Any) -> None:
        if table.shape != self.table.shape:
            raise ValueError(
                f"block_table has shape {table.shape} and was planned with {tuple(self.table.shape)}: plan with all "
                "blocks that a sequence may need."
            )
        if not np.array_equal(table, self.followed):
            self.table[...] = import_module("cupy").asarray(table)
            self.followed[...] = table

    def block_table(self) -> Any:
        """The kernels' `BlockTable`."""
        blocks = 0 if self.table is None else self.table.shape[1]
        return struct(entries=self.table, blocks=blocks, num_pages=self.keys.shape[0])


def _arrays(rows: Rows) -> tuple[Any, Any]:
    return (rows.key_pages, rows.value_pages) if isinstance(rows, PagedRows) else (rows.keys, rows.values)


def _is_readable(array: Any) -> bool:
    """Whether rows [..., D] are neighbouring elements and begin at multiples of 16 bytes."""
    offsets = (array.data.ptr, *array.strides[:-1])
    return array.strides[-1] == array.itemsize and not any(offset % _ALIGNMENT for offset in offsets)


def rows_of(array: Any) -> Any:
    """The kernels' `Rows` of an array [blocks, Hkv, S, D]."""
    block, head, slot, _ = array.strides
    base = np.uint64(array.data.ptr)
    return struct(base=base, block_stride=np.int64(block), head_stride=np.int64(head), slot_stride=slot)
