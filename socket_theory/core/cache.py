"""Keys, values and the method's index beside them: what a decode step reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from socket_theory.core.array_types import callers_stream
from socket_theory.core.backend import Backend
from socket_theory.core.checks import read_array, require_finite
from socket_theory.core.inputs import check_index, check_key_values, flatten_lead, per_sequence, require_same_index

if TYPE_CHECKING:
    from socket_theory.core.method import Method


@dataclass(frozen=True, eq=False)
class Cache:
    """Made by `Method.prepare`; every operation returns a new one and leaves this one as it was.

    With `capacity` an append to the newest cache writes behind its last token, in buffers the older ones share, and
    costs as much as the new tokens; an append to an older or truncated one is made in a copy.

    But on a GPU an append that fits writes behind a cache's last token into the arrays it shares with those it came
    from: of two appended to one cache only the last holds, and an append to a truncated one overwrites what the longer
    one held there.

    Parameters
    ----------
    method : Method
        The method whose index this is.
    arrays : dict
        `keys` [B, Hkv, N, D], `values` [B, Hkv, N, E] and the index, token axis last.
    spans : int64 array [B, 2]
        (kv_start, kv_len) of each sequence.
    lead : tuple of int
        The leading shape the user gave; its product is B.
    planes : Planes or None
    center : array [B, Hkv, D] or None
        The offset subtracted from keys before hashing.
    capacity : int or None
        Most slots it will ever hold. Without, every append copies the cache, on the CPU and on a GPU.
    array_type : str
        What the user passes and gets: "numpy", "torch", "cupy" or "torch-cuda".
    backend : Backend
    """

    method: Method
    arrays: dict[str, Any]
    spans: Any
    lead: tuple[int, ...]
    planes: Any
    center: Any | None
    capacity: int | None
    array_type: str
    backend: Backend

    def __post_init__(self) -> None:
        for array in (*self.arrays.values(), self.spans, self.center):
            if isinstance(array, np.ndarray):
                array.setflags(write=False)

    @property
    def keys(self) -> Any:
        """Keys [B, Hkv, N, D], read-only."""
        return self.arrays["keys"]

    @property
    def values(self) -> Any:
        """Values [B, Hkv, N, E], read-only."""
        return self.arrays["values"]

    @property
    def kv_len(self) -> Any:
        """Valid tokens of each sequence, int64 of the leading shape."""
        return self.spans[:, 1].reshape(self.lead)

    @property
    def kv_start(self) -> Any:
        """First valid slot of each sequence, int64 of the leading shape."""
        return self.spans[:, 0].reshape(self.lead)

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and index: on the CPU without the room that `capacity` reserves, on a GPU with it."""
        return sum(int(array.nbytes) for array in self.arrays.values())

    def append(self, keys: Any, values: Any) -> Cache:
        """A cache with T more tokens behind each sequence's valid ones. Use the returned one. Source: C3.

        Shapes: keys [..., Hkv, T, D], values [..., Hkv, T, E].

        Raises
        ------
        TypeError, ValueError
            As `prepare`; also if the tokens exceed the planned capacity.
        """
        keys, values, kind = check_key_values(keys, values)
        if kind != self.array_type:
            raise TypeError(f"the cache holds {self.array_type} arrays and {kind} ones were given: convert them.")
        want = (*self.lead, self.keys.shape[1], keys.shape[-2], self.keys.shape[-1])
        if keys.shape != want or values.shape[-1] != self.values.shape[-1]:
            raise ValueError(
                f"keys {keys.shape} and values {values.shape} do not fit the cache: "
                f"pass keys {want} and values {(*want[:-1], self.values.shape[-1])}."
            )
        if keys.dtype != self.keys.dtype or values.dtype != self.values.dtype:
            raise TypeError(
                f"keys of {keys.dtype} and values of {values.dtype} were given to a cache of {self.keys.dtype} and "
                f"{self.values.dtype}: convert them first."
            )
        keys, values = flatten_lead(keys, len(self.lead)), flatten_lead(values, len(self.lead))
        added = keys.shape[-2]
        if self.capacity is not None and int(self.spans.sum(axis=1).max()) + added > self.capacity:
            raise ValueError(f"appending {added} tokens exceeds capacity={self.capacity}: prepare with a larger one.")
        whole = np.tile(np.array([0, added]), (len(self.spans), 1))
        require_finite("keys", keys)
        require_finite("values", values)
        with callers_stream(self.array_type):
            made = self.method.index(self.backend, keys, values, whole, self.planes, self.center)
            index = check_index(self.method, made, keys, self.backend.slot_block)
            new = {"keys": keys, "values": values, **index}
            arrays = self.backend.write_tokens(self.arrays, new, self.spans, self.capacity)
        return replace(self, arrays=arrays, spans=self.spans + np.array([0, added]))

    def truncate(self, length: Any) -> Cache:
        """A cache with the first `length` valid tokens of each sequence; an int, or ints of the leading shape.

        Raises
        ------
        ValueError
            If a length is below 1 or beyond what a sequence holds.
        """
        lengths = per_sequence("length", length, self.lead)
        if (lengths < 1).any() or (lengths > self.spans[:, 1]).any():
            raise ValueError(
                f"length={length} was given for sequences of {self.spans[:, 1].tolist()} tokens: "
                "pass at least 1 and at most what each holds."
            )
        return replace(self, spans=np.stack([self.spans[:, 0], lengths], axis=1))

    def take(self, batch_indices: Any) -> Cache:
        """A cache of the sequences `batch_indices`, in that order, repeats allowed (beam search).

        Raises
        ------
        ValueError
            If the cache has no single batch axis, or an index is out of range.
        """
        rows = read_array("batch_indices", batch_indices)
        if len(self.lead) != 1:
            raise ValueError(f"the cache has leading shape {self.lead}: take needs exactly one batch axis.")
        if rows.ndim != 1 or rows.dtype.kind not in "iu" or not rows.size:
            raise ValueError(f"batch_indices={batch_indices!r} was given: pass a non-empty list of integers.")
        if (rows < 0).any() or (rows >= self.lead[0]).any():
            raise ValueError(f"batch_indices={rows.tolist()} was given: pass integers from 0 to {self.lead[0] - 1}.")
        center = None if self.center is None else self.center[rows]
        arrays = self.backend.take_rows(self.arrays, rows)
        return replace(self, arrays=arrays, spans=self.spans[rows], lead=(len(rows),), center=center)

    def with_method(self, method: Method) -> Cache:
        """This cache for another method that reads the same index; nothing is copied or hashed.

        Free to differ are settings that touch the query or the draws only, such as `temperature`, `query_map` and
        `num_samples`. Methods without an index, such as `Dense`, `OracleTopK`, `Window` and `Santa`, read each other's
        caches.

        Raises
        ------
        TypeError
            If `method` is no Method.
        ValueError
            If the index would be another one, naming the first setting that says so.
        """
        require_same_index(self.method, method)
        return replace(self, method=method)

    def save(self, path: str | Path) -> None:
        """Write a NumPy or torch CPU cache to one npz file, without pickle; `load_cache` reads it.

        The method's class and settings are in the file, its code is not: for a class of your own pass `load_cache` a
        method, too. Raises ValueError for a cache on a GPU, and for settings that are no numbers, strings, booleans or
        None.
        """
        from socket_theory.core.storage import save_cache

        save_cache(self, path)
