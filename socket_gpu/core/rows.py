"""Rows of keys and values as kernels read them: an array of any strides, or pages with their block table."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.core._launch import checked, struct
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

    @classmethod
    def of(cls, rows: Rows) -> DeviceRows:
        """Of a cache's rows, without a copy but of the block table.

        Raises
        ------
        TypeError, ValueError
            For values of another dtype or head_dim than keys, and rows that do not begin at multiples of 16 bytes.
        """
        if isinstance(rows, PagedRows):
            table = import_module("cupy").asarray(rows.block_table.astype(np.int32))
            return cls.checked(rows.key_pages, rows.value_pages, table, rows.shape)
        return cls.checked(rows.keys, rows.values, None, rows.shape)

    @classmethod
    def checked(cls, keys: Any, values: Any, table: Any, shape: tuple[int, int, int, int]) -> DeviceRows:
        """As `of`, of the parts."""
        if values.dtype != keys.dtype:
            raise TypeError(f"values have dtype {values.dtype} and keys {keys.dtype}: pass values of the keys' dtype.")
        if values.shape != keys.shape:
            raise ValueError(
                f"values have shape {values.shape} and keys {keys.shape}: pass values of the keys' head_dim."
            )
        for name, array in (("keys", keys), ("values", values)):
            checked(name, array, alignment=_ALIGNMENT, contiguous=False)
            if not lies_in_rows(array):
                raise ValueError(
                    f"{name} have strides of {array.strides} bytes: pass rows of neighbouring elements that begin at "
                    f"multiples of {_ALIGNMENT} bytes."
                )
        return cls(keys, values, table, shape)

    @property
    def page(self) -> int:
        """Slots of a page, 0 without pages."""
        return 0 if self.table is None else int(self.keys.shape[2])

    def block_table(self) -> Any:
        """The kernels' `BlockTable`."""
        blocks = 0 if self.table is None else self.table.shape[1]
        return struct(entries=self.table, blocks=blocks, num_pages=self.keys.shape[0])


def lies_in_rows(array: Any) -> bool:
    """Whether rows [..., D] are neighbouring elements and begin at multiples of 16 bytes."""
    return bool(
        array.strides[-1] == array.itemsize and not any(stride % _ALIGNMENT for stride in array.strides[:-1])
    )


def rows_of(array: Any) -> Any:
    """The kernels' `Rows` of an array [blocks, Hkv, S, D]."""
    block, head, slot, _ = array.strides
    base = np.uint64(array.data.ptr)
    return struct(base=base, block_stride=np.int64(block), head_stride=np.int64(head), slot_stride=slot)
