"""NumPy arrays with room for tokens behind those they hold, so that appending to the newest cache copies no other.

Caches of one origin are views of the same buffers. Of a buffer it is known which slots belong to one of them; an append
that would write into those is made in a copy, so every cache stays what it was.
"""

from __future__ import annotations

from threading import Lock
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_CLAIMS = Lock()
# For each living buffer, by id: of sequence b the slots before taken[b] belong to a cache.
_TAKEN: dict[int, NDArray[np.int64]] = {}


def with_room(array: Array, axis: int, slots: int, taken: Any) -> Array:
    """A row-major copy of `array` [B, ...] with room for `slots` along `axis`: the view of those it has itself."""
    return _first(_copied(array, axis, slots, taken), axis, array.shape[axis])


def room_of(array: Array, axis: int) -> int:
    """How many slots the buffer of `array` has, or the array itself if it is no view of one."""
    buffer = _buffer(array)
    return int((array if buffer is None else buffer).shape[axis])


def append_tokens(array: Array, new: Array, ends: Array, capacity: int, axis: int) -> Array:
    """`array` [B, ...] with the slots of `new` behind `ends` [B] along `axis`, in its own buffer or in a copy."""
    added = new.shape[axis]
    slots = max(array.shape[axis], int(ends.max()) + added)
    in_place = _claim(array, axis, ends, added)
    lengthened = _lengthened(array, axis, slots, max(slots, capacity), ends + added, in_place)
    for row, end in enumerate(ends):
        np.moveaxis(lengthened[row], axis, 0)[end : end + added] = np.moveaxis(new[row], axis, 0)
    return lengthened


def beside(rows: Array, index: Array) -> Array:
    """`index`, token axis last, with as much room as the `rows` [..., N, D] it is made of."""
    slots = room_of(rows, -2)
    return index if slots == index.shape[-1] else with_room(index, -1, slots, index.shape[-1])


def _claim(array: Array, axis: int, ends: Array, added: int) -> bool:
    """Take the `added` slots behind `ends` [B], if no cache has any of them and there is room; whether it was done."""
    buffer = _buffer(array)
    if buffer is None or int(ends.max()) + added > buffer.shape[axis]:
        return False
    taken = _TAKEN[id(buffer)]
    with _CLAIMS:
        free = bool((ends >= taken).all())
        if free:
            taken[...] = ends + added
    return free


def _lengthened(array: Array, axis: int, slots: int, room: int, taken: Any, in_place: bool) -> Array:
    """A writable view of `slots`: in the buffer of `array` if `in_place` and they fit, else in a copy with `room`."""
    buffer = _buffer(array) if in_place else None
    if buffer is None or buffer.shape[axis] < slots:
        buffer = _copied(array, axis, room, taken)
    return _first(buffer, axis, slots)


def _copied(array: Array, axis: int, slots: int, taken: Any) -> Array:
    shape = list(array.shape)
    shape[axis] = slots
    buffer = np.zeros(shape, dtype=array.dtype)
    _TAKEN[id(buffer)] = np.broadcast_to(taken, len(array)).astype(np.int64)
    finalize(buffer, _TAKEN.pop, id(buffer), None).atexit = False
    _first(buffer, axis, array.shape[axis])[...] = array
    return buffer


def _buffer(array: Array) -> Array | None:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array if id(array) in _TAKEN else None


def _first(buffer: Array, axis: int, slots: int) -> Array:
    place = [slice(None)] * buffer.ndim
    place[axis] = slice(slots)
    return buffer[tuple(place)]
