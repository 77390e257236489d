"""Rows and a method's index beside them: what a decode step reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from socket_theory.core.array_types import callers_stream
from socket_theory.core.backend import Backend
from socket_theory.core.check_growth import grown_rows, new_tokens, reordered
from socket_theory.core.checks import read_array
from socket_theory.core.index import Index
from socket_theory.core.index_recipe import require_same_index
from socket_theory.core.inputs import per_sequence
from socket_theory.core.owned_elsewhere import OwnedElsewhere
from socket_theory.core.plans import plan_of
from socket_theory.core.rows import Rows


@dataclass(frozen=True, eq=False)
class Cache:
    """Made by `Method.prepare`; operations leave this one as it was and return another, or this if nothing changes.

    With `capacity` an append to the newest cache writes behind its last token, in buffers the older ones share, and
    costs as much as the new tokens; an append to an older or truncated one is made in a copy.

    But on a GPU an append that fits writes behind a cache's last token into the arrays it shares with those it came
    from: of two appended to one cache only the last holds, and an append to a truncated one overwrites what the longer
    one held there.

    Parameters
    ----------
    method : Method
        The method whose index this is.
    rows : Rows
        Keys and values, and which of their slots are valid: `DenseRows` that the cache owns, `BorrowedRows` or
        `PagedRows` that somebody else does, or `NoRows`.
    index : Index
        What the method keeps beside them.
    sample : object or None
        What the method drew at `prepare`, or was passed: `Planes` for methods that hash.
    batch_shape : tuple of int
        The shape in front of [Hkv, N, D] that the user gave; its product is B.
    array_type : str
        What the user passes and gets: "numpy", "torch", "cupy" or "torch-cuda".
    """

    method: Any
    rows: Rows
    index: Index
    sample: Any
    batch_shape: tuple[int, ...]
    array_type: str

    def __post_init__(self) -> None:
        if isinstance(self.rows.kv_range, np.ndarray):
            self.rows.kv_range.setflags(write=False)

    @property
    def keys(self) -> Any:
        """Keys [B, Hkv, N, D], read-only where the cache owns them."""
        return self.rows.keys

    @property
    def values(self) -> Any:
        """Values [B, Hkv, N, E], read-only where the cache owns them."""
        return self.rows.values

    @property
    def kv_range(self) -> Any:
        """(kv_start, kv_len) of each sequence, int64 [B, 2]."""
        return self.rows.kv_range

    @property
    def kv_len(self) -> Any:
        """Valid tokens of each sequence, int64 of the batch shape."""
        return self.kv_range[:, 1].reshape(self.batch_shape)

    @property
    def kv_start(self) -> Any:
        """First valid slot of each sequence, int64 of the batch shape."""
        return self.kv_range[:, 0].reshape(self.batch_shape)

    @property
    def capacity(self) -> int | None:
        """Most slots it will ever hold. Without, every append to rows that the cache owns copies them."""
        return self.rows.capacity

    @property
    def backend(self) -> Backend:
        backend: Backend = self.rows.backend
        return backend

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and index: on the CPU without the room that `capacity` reserves, on a GPU with it."""
        return self.rows.nbytes + self.index.nbytes

    def append(self, keys: Any, values: Any = None, *, tokens: int | None = None) -> Cache:
        """A cache with T more tokens behind each sequence's valid ones. Use the returned one. Source: C3.

        Parameters
        ----------
        keys, values : arrays [..., Hkv, T, D] and [..., Hkv, T, E]
            The new tokens. For a cache of borrowed or paged rows instead of both the owner's rows after it has written
            them, as `BorrowedRows` or `PagedRows`.
        tokens : int, optional
            With such rows: how many tokens T were written behind each sequence's valid ones.

        Raises
        ------
        TypeError, ValueError
            As `prepare`; also if the tokens exceed the planned capacity.
        """
        if isinstance(self.rows, OwnedElsewhere):
            rows, new, count = grown_rows(self.rows, self.array_type, keys, values, tokens)
        else:
            rows = new = new_tokens(self.rows, self.batch_shape, self.array_type, keys, values, tokens)
            count = new.shape[2]
        with callers_stream(self.array_type):
            index = self.method.extend(self.index, self.rows, new, self.sample)
            return replace(self, rows=self.rows.append(rows, count), index=index)

    def truncate(self, length: Any) -> Cache:
        """A cache with the first `length` valid tokens of each sequence; an int, or ints of the batch shape.

        Raises
        ------
        ValueError
            If a length is below 1 or beyond what a sequence holds, or the index holds sums over tokens.
        """
        lengths = per_sequence("length", length, self.batch_shape)
        if (lengths < 1).any() or (lengths > self.kv_range[:, 1]).any():
            raise ValueError(
                f"length={length} was given for sequences of {self.kv_range[:, 1].tolist()} tokens: "
                "pass at least 1 and at most what each holds."
            )
        if (lengths == self.kv_range[:, 1]).all():
            return self
        return replace(self, rows=self.rows.truncate(lengths), index=self.index.truncate(lengths))

    def take(self, batch_indices: Any, *, rows: Rows | None = None) -> Cache:
        """A cache of the sequences `batch_indices`, in that order, repeats allowed (beam search).

        `rows` are the owner's reordered `BorrowedRows`, for a cache of those.

        Raises
        ------
        ValueError
            If the cache has no single batch axis, or an index is out of range.
        """
        order = read_array("batch_indices", batch_indices)
        if len(self.batch_shape) != 1:
            raise ValueError(f"the cache has batch shape {self.batch_shape}: take needs exactly one batch axis.")
        if order.ndim != 1 or order.dtype.kind not in "iu" or not order.size:
            raise ValueError(f"batch_indices={batch_indices!r} was given: pass a non-empty list of integers.")
        if (order < 0).any() or (order >= self.batch_shape[0]).any():
            raise ValueError(
                f"batch_indices={order.tolist()} was given: pass integers from 0 to {self.batch_shape[0] - 1}."
            )
        taken = self.rows.take(order) if rows is None else reordered(self.rows, self.array_type, rows, order)
        return replace(self, rows=taken, index=self.index.take(order, self.backend), batch_shape=(len(order),))

    def plan(self, num_qo_heads: int, **given: Any) -> Any:
        """A decode step of `num_qo_heads` query heads over this cache, planned once and run many times
        (`socket_theory.core.plans.Plan`), with what `Method.attend` takes: budget, key, sm_scale, out_dtype.

        Raises TypeError or ValueError for an argument the method does not take, and for a method, dtype, head_dim or
        head ratio that the backend has no kernels for.
        """
        options = {name: value for name, value in given.items() if value is not None}
        for name in options.keys() - {*self.method.takes, "out_dtype"}:
            raise TypeError(f"{type(self.method).__name__} does not use {name}, which was given: drop it.")
        return plan_of(self.backend.name, type(self.method))(self, num_qo_heads=num_qo_heads, **options)

    def with_method(self, method: Any) -> Cache:
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
