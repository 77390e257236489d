"""Rows of keys and values as kernels read them: an array of any strides, or pages with their block table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.core._launch import checked, row_major, struct
from socket_theory.core.owned_elsewhere import PagedRows
from socket_theory.core.rows import DenseRows, Rows

_ALIGNMENT = 16
_MOST_DIM = 256


@dataclass(frozen=True, eq=False)
class DeviceRows:
    """B sequences of N slots: keys and values [blocks, Hkv, S, D], where a block is a sequence, or a page of S slots.

    `table` int32 [B, N / S] names the pages of each sequence; None without pages.
    """

    keys: Any
    values: Any
    table: Any
    shape: tuple[int, int, int, int]

    @classmethod
    def of(cls, rows: Rows) -> DeviceRows:
        """A cache's rows where they are; only the block table is copied.

        Raises
        ------
        TypeError, ValueError
            For a head_dim that kernels do not read, values of another dtype or head_dim, and rows whose elements are
            no neighbours or that begin between multiples of 16 bytes.
        """
        keys, values = _arrays(rows)
        require_width(keys)
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
                    f"multiples of {_ALIGNMENT} bytes, a slot less than 2 GiB from the next."
                )
        table = (
            import_module("cupy").asarray(rows.block_table.astype(np.int32)) if isinstance(rows, PagedRows) else None
        )
        return cls(keys, values, table, rows.shape)

    @classmethod
    def readable(cls, rows: Rows) -> DeviceRows:
        """As `of`, with copies of rows that kernels cannot read where they are."""
        if all(map(_is_readable, _arrays(rows))):
            return cls.of(rows)
        return cls.of(DenseRows(row_major(rows.keys), row_major(rows.values)))

    @property
    def page(self) -> int:
        """Slots of a page, 0 without pages."""
        return 0 if self.table is None else int(self.keys.shape[2])

    @cached_property
    def key_rows(self) -> Any:
        """The kernels' `Rows` of the keys."""
        return _rows(self.keys)

    @cached_property
    def value_rows(self) -> Any:
        """The kernels' `Rows` of the values."""
        return _rows(self.values)

    @cached_property
    def block_table(self) -> Any:
        """The kernels' `BlockTable`."""
        blocks = 0 if self.table is None else self.table.shape[1]
        return struct(entries=self.table, blocks=blocks, num_pages=self.keys.shape[0])

    def follow(self, grown: Rows) -> None:
        """Take over the block table of an owner's rows; while a graph is captured, the table stays as it is.

        Raises
        ------
        ValueError
            For rows that lie elsewhere or have other slots.
        """
        for mine, theirs in zip((self.keys, self.values), _arrays(grown), strict=True):
            if mine.shape != theirs.shape:
                raise ValueError(
                    f"rows of {theirs.shape} were given and the step was planned for {mine.shape}: plan for all that "
                    "their owner has reserved."
                )
            if (mine.data.ptr, mine.strides) != (theirs.data.ptr, theirs.strides):
                raise ValueError(
                    "the rows lie elsewhere than those the step was planned for: plan the cache of these rows anew."
                )
        if not isinstance(grown, PagedRows):
            return
        table = grown.block_table.astype(np.int32)
        if table.shape != self.table.shape:
            raise ValueError(
                f"block_table has shape {table.shape} and was planned with {tuple(self.table.shape)}: plan with all "
                "blocks that a sequence may need."
            )
        stream = import_module("cupy").cuda.get_current_stream()
        if not stream.is_capturing():
            self.table.set(table, stream)


def require_width(array: Any) -> Any:
    """Keys or values [..., D], or ValueError for a D that the kernels do not read."""
    if array.dtype.itemsize * array.shape[-1] % _ALIGNMENT:
        raise ValueError(f"head_dim={array.shape[-1]} of {array.dtype} was given: the GPU reads rows of 16 bytes.")
    if array.shape[-1] > _MOST_DIM:
        raise ValueError(f"head_dim={array.shape[-1]} was given: the GPU takes at most {_MOST_DIM}.")
    return array


def _arrays(rows: Rows) -> tuple[Any, Any]:
    return (rows.key_pages, rows.value_pages) if isinstance(rows, PagedRows) else (rows.keys, rows.values)


def _is_readable(array: Any) -> bool:
    """Whether rows [..., D] are neighbouring elements and begin at multiples of 16 bytes."""
    offsets, near = (array.data.ptr, *array.strides[:-1]), abs(array.strides[-2]) < 2**31
    return near and array.strides[-1] == array.itemsize and not any(offset % _ALIGNMENT for offset in offsets)


def _rows(array: Any) -> Any:
    """The kernels' `Rows` of an array [blocks, Hkv, S, D]."""
    block, head, slot, _ = array.strides
    base = np.uint64(array.data.ptr)
    return struct(base=base, block_stride=np.int64(block), head_stride=np.int64(head), slot_stride=slot)
