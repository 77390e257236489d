"""Keys and values that somebody else owns and grows: a language model's cache, or the pages of a serving engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NoReturn, Self

import numpy as np

from socket_theory.core.checks import read_array
from socket_theory.core.inputs import check_key_values
from socket_theory.core.rows import ArrayRows, DenseRows, Rows


class OwnedElsewhere(Rows):
    """Rows that somebody else writes: a cache reads them where they are, and is told when they have grown."""

    def native(self) -> tuple[Any, str]:
        """The rows with the arrays of a backend, without a copy, and their array type."""
        raise NotImplementedError

    def fits(self, old: Rows, batch: int) -> bool:
        """Whether these can be `batch` sequences of the rows `old`, grown or not."""
        return (
            type(self) is type(old)
            and (self.shape[:2], self.shape[3]) == ((batch, old.shape[1]), old.shape[3])
            and (self.value_dim, self.dtypes) == (old.value_dim, old.dtypes)
        )

    def tokens(self, starts: Any, count: int) -> DenseRows:
        """Copies of the `count` tokens from the slot starts [B] of each sequence on."""
        rows, slots = np.arange(len(starts))[:, None], np.asarray(starts)[:, None] + np.arange(count)
        keys, values = self._at(rows, slots)
        return DenseRows(keys, values, np.tile(np.array([0, count]), (len(starts), 1)), self.backend)

    def _at(self, rows: Any, slots: Any) -> tuple[Any, Any]:
        """Keys and values [B, Hkv, T, *] of the sequences `rows` [B, 1] at `slots` [B, T]."""
        raise NotImplementedError

    def append(self, new: Rows, count: int) -> Self:
        grown: Self = new.bind(self._longer(count), self.backend)  # type: ignore[assignment]
        return grown


@dataclass(frozen=True, eq=False)
class BorrowedRows(OwnedElsewhere, ArrayRows):
    """Views of a cache that somebody else grows, such as a language model's: nothing is copied.

    Pass them to `prepare`, and the owner's arrays again, in new BorrowedRows, to `Cache.append` after every growth.

    Parameters
    ----------
    keys, values : arrays [B, Hkv, N, D] and [B, Hkv, N, E]
        As `prepare` takes them; views of any strides.
    """

    keys: Any
    values: Any
    kv_range: Any = None
    backend: Any = None
    capacity: int | None = None

    def native(self) -> tuple[BorrowedRows, str]:
        keys, values, array_type = check_key_values(self.keys, self.values)
        if keys.ndim != 4:
            raise ValueError(
                f"BorrowedRows of shape {tuple(keys.shape)} were given: pass [B, num_kv_heads, kv_len, head_dim]."
            )
        return replace(self, keys=keys, values=values), array_type

    def _at(self, rows: Any, slots: Any) -> tuple[Any, Any]:
        place = self.backend.to_device(rows), slice(None), self.backend.to_device(slots)
        return self.keys[place].swapaxes(1, 2), self.values[place].swapaxes(1, 2)

    def take(self, order: Any) -> NoReturn:
        raise ValueError(
            "the cache reads rows that somebody else owns, and take would copy them: reorder the owner's arrays, "
            "and pass them as take(batch_indices, rows=BorrowedRows(keys, values))."
        )


@dataclass(frozen=True, eq=False)
class PagedRows(OwnedElsewhere):
    """Rows in pages of S slots, as serving engines keep them; copied are the block table and what a step reads.

    Slot n of sequence b is slot n % S of the page block_table[b, n // S]. Pages may be in any order, and sequences may
    share them.

    Parameters
    ----------
    key_pages, value_pages : arrays [pages, Hkv, S, D] and [pages, Hkv, S, E]
    block_table : integers [B, blocks]
        Page numbers; entries of blocks without valid tokens may be anything within the pages. A cache does not see its
        later changes: pass the rows again to `Cache.append` or `Cache.take`.
    """

    key_pages: Any
    value_pages: Any
    block_table: Any
    kv_range: Any = None
    backend: Any = None
    capacity: int | None = None

    @property
    def keys(self) -> Any:
        return self._gathered(self.key_pages)

    @property
    def values(self) -> Any:
        return self._gathered(self.value_pages)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        _, heads, page, dim = self.key_pages.shape
        batch, blocks = self.block_table.shape
        return batch, heads, blocks * page, dim

    @property
    def value_dim(self) -> int:
        return int(self.value_pages.shape[-1])

    @property
    def dtypes(self) -> tuple[Any, Any]:
        return self.key_pages.dtype, self.value_pages.dtype

    @property
    def nbytes(self) -> int:
        """Of the pages in the block table; a page that sequences share counts once."""
        pages = len(np.unique(self.block_table))
        return pages * sum(int(array[0].nbytes) for array in (self.key_pages, self.value_pages))

    def read(self, row: int, kv_head: int, slots: Any) -> tuple[Any, Any]:
        listed = np.arange(self.shape[2])[slots]
        page, within = np.divmod(listed, self.key_pages.shape[2])
        place = self.backend.to_device
        pages, within = place(self.block_table[row][page]), place(within)
        return self.key_pages[pages, kv_head, within], self.value_pages[pages, kv_head, within]

    def native(self) -> tuple[PagedRows, str]:
        keys, values, array_type = check_key_values(self.key_pages, self.value_pages)
        table = read_array("block_table", self.block_table).copy()  # its owner may change it in place
        if keys.ndim != 4:
            raise ValueError(
                f"pages of shape {tuple(keys.shape)} were given: pass [pages, num_kv_heads, slots, head_dim]."
            )
        if table.ndim != 2 or table.dtype.kind not in "iu" or not table.size:
            raise ValueError(f"block_table of {table.dtype} {table.shape} was given: pass integers [B, blocks].")
        if (table < 0).any() or (table >= len(keys)).any():
            raise ValueError(f"block_table names pages from {table.min()} to {table.max()}: pass 0 to {len(keys) - 1}.")
        return replace(self, key_pages=keys, value_pages=values, block_table=table), array_type

    def _at(self, rows: Any, slots: Any) -> tuple[Any, Any]:
        block, within = np.divmod(slots, self.key_pages.shape[2])
        pages = self.backend.to_device(self.block_table[rows, block])
        place = pages, slice(None), self.backend.to_device(within)
        return self.key_pages[place].swapaxes(1, 2), self.value_pages[place].swapaxes(1, 2)

    def take(self, order: Any) -> PagedRows:
        return replace(self, block_table=self.block_table[order], kv_range=self.kv_range[order])

    def _gathered(self, pages: Any) -> Any:
        batch, blocks = self.block_table.shape
        gathered = pages[self.backend.to_device(self.block_table)].swapaxes(1, 2)
        return gathered.reshape(batch, pages.shape[1], blocks * pages.shape[2], pages.shape[3])
