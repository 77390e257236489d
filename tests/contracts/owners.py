"""Owners of rows for the tests: arrays of any strides and pages, which somebody else writes."""

import numpy as np

from socket_theory import BorrowedRows, PagedRows

SLOTS, GROWN = 60, 67
RAGGED = {"kv_start": [0, 3, 6], "kv_len": [50, 41, 54]}


class Owner:
    """Somebody's keys and values in room for GROWN slots, of which NaN is what is not written yet."""

    def __init__(self, backend, ranges, **shape):
        self.backend = backend
        self.query, keys, values = backend.arrays(slots=GROWN, **shape)
        self.start, self.length = (np.broadcast_to(ranges.get(name, 0), 3) for name in ("kv_start", "kv_len"))
        self.new = [array[:, :, -5:] for array in (keys, values)]
        self.keys, self.values = keys.copy(), values.copy()
        for row, end in enumerate(self.start + self.length):
            for array in (self.keys, self.values):
                array[row, :, : self.start[row]] = array[row, :, end:] = np.nan

    def grow(self):
        """Write five tokens behind the valid ones of each sequence."""
        for row, end in enumerate(self.start + self.length):
            for array, new in zip((self.keys, self.values), self.new, strict=True):
                array[row, :, end : end + 5] = new[row]
        self.length = self.length + 5


def contiguous(backend, keys, values):
    return BorrowedRows(backend.put(keys), backend.put(values))


def tokens_first(backend, keys, values):
    """Views of arrays [B, N, Hkv, D], as of a model that does not transpose."""
    stored = [backend.put(np.ascontiguousarray(array.swapaxes(1, 2))) for array in (keys, values)]
    return BorrowedRows(*(array.swapaxes(1, 2) for array in stored))


def every_second(backend, keys, values):
    """Views of every second slot and feature of larger arrays, the other ones NaN."""
    stored = []
    for array in (keys, values):
        larger = np.full((*array.shape[:2], 2 * array.shape[2], 2 * array.shape[3]), np.nan, array.dtype)
        larger[:, :, ::2, 1::2] = array
        stored.append(backend.put(larger)[:, :, ::2, 1::2])
    return BorrowedRows(*stored)


def interleaved(backend, keys, values):
    """Views of one array that holds keys and values side by side."""
    both = backend.put(np.concatenate([keys, values], axis=-1))
    return BorrowedRows(both[..., : keys.shape[-1]], both[..., keys.shape[-1] :])


def paged(page, shared=False):
    """Pages in shuffled order; with `shared` equal blocks of sequences are one page."""

    def make(backend, keys, values):
        batch, heads, slots, _ = keys.shape
        blocks = -(-slots // page)
        table = np.arange(batch * blocks).reshape(batch, blocks)
        if shared:
            for row, block in np.ndindex(batch, blocks):
                here = slice(block * page, (block + 1) * page)
                if np.array_equal(keys[row, :, here], keys[0, :, here]):
                    table[row, block] = table[0, block]
        order = backend.key.fold_in("pages").generator().permutation(batch * blocks + 3)
        pages = []
        for array in (keys, values):
            made = np.full((len(order), heads, page, array.shape[-1]), np.nan, array.dtype)
            padded = np.pad(array, ((0, 0), (0, 0), (0, blocks * page - slots), (0, 0)), constant_values=np.nan)
            for row, block in np.ndindex(batch, blocks):
                made[order[table[row, block]]] = padded[row, :, block * page : (block + 1) * page]
            pages.append(backend.put(made))
        return PagedRows(*pages, order[table])

    return make


LAYOUTS = {
    "borrowed": contiguous,
    "borrowed, tokens first": tokens_first,
    "borrowed, strided": every_second,
    "borrowed, interleaved": interleaved,
    "pages of 1": paged(1),
    "pages of 16": paged(16),
    "pages of 64": paged(64),
}
BORROWED = {name: layout for name, layout in LAYOUTS.items() if name.startswith("borrowed")}
