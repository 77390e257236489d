"""What every planned step shares: a cache that grows in place, a status word on the device, the caller's arrays."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.core._launch import checked, settle
from socket_gpu.core.append import advance_spans, append_into, read_into
from socket_gpu.core.rows import DeviceRows
from socket_theory.core.array_types import array_type, callers_stream, from_native, to_native
from socket_theory.core.cache import Cache
from socket_theory.core.check_growth import require_grown, require_tokens
from socket_theory.core.checks import require_count, require_head_ratio, require_positive
from socket_theory.core.finish import output_dtype
from socket_theory.core.owned_elsewhere import OwnedElsewhere
from socket_theory.core.plans import require_no
from socket_theory.core.rows import Rows


class PlannedStep:
    """Buffers and launches of one layer's step over one cache, planned once and run many times.

    Queries and tokens are CuPy arrays, or torch CUDA tensors where the cache was prepared from them; kernels are
    launched on CuPy's, or torch's, current stream. `spans` int64 [B, 2] hold (kv_start, kv_len) on the device; those of
    `cache`, on the host, stay as they were planned. Rows of another owner are read where they are; `rows.table` int32
    [B, blocks] is the plan's own copy of the block table of pages, read anew by every launch: `append` renews it, but
    not while a graph is captured, between whose replays its owner may write to it. The first `append` of as many tokens
    of an owner allocates their copies: make one before capturing. `rows` is None for a method that keeps none.

    Raises
    ------
    TypeError, ValueError
        For a cache of another backend, a wrong head ratio, or an out_dtype that is no float; of rows that are kept, for
        values of another dtype or head_dim than keys, and an owner's that kernels cannot read where they are.
    """

    def __init__(self, cache: Cache, num_qo_heads: int, sm_scale: float | None, out_dtype: Any) -> None:
        cupy = import_module("cupy")
        if cache.backend.name != "cupy":
            raise ValueError(f"the cache is on backend {cache.backend.name!r}: prepare it with CuPy or CUDA arrays.")
        with callers_stream(cache.array_type):
            settle()  # what is read below was written there
        self.cache = cache
        self.rows: Any = DeviceRows.of(cache.rows) if cache.method.keeps_rows else None
        batch, heads, slots, dim = cache.rows.shape
        self.slots, self.dtype = cache.capacity or slots, cache.rows.dtypes[0]
        self.group = require_head_ratio(require_count("num_qo_heads", num_qo_heads), heads)
        self.sm_scale = 1 / float(np.sqrt(dim)) if sm_scale is None else require_positive("sm_scale", sm_scale)
        self.spans = cupy.asarray(cache.kv_range)
        self.status = cupy.zeros(1, dtype=np.uint32)
        wide = np.float64 if self.dtype.itemsize == 8 else np.float32
        dtype = self.dtype if out_dtype is None else output_dtype(out_dtype)
        self.value = cupy.empty((batch, num_qo_heads, cache.rows.value_dim), dtype=dtype)
        self.lse = cupy.empty((batch, num_qo_heads), dtype=wide)
        self._grown: dict[int, tuple[Any, Any]] = {}
        self._returned = from_native(self.value, cache.array_type), from_native(self.lse, cache.array_type)

    def run(self, query: Any) -> tuple[Any, Any]:
        """One step for queries [B, Hq, D] of the cache's dtype: (value, lse), which are the plan's own.

        Raises
        ------
        TypeError, ValueError
            Before anything is launched, for a query of another library, dtype, shape or layout.
        """
        shape = (*self.value.shape[:2], self.cache.rows.shape[3])
        with callers_stream(self.cache.array_type):
            native = checked("query", self._native("query", query), self.dtype, shape, alignment=4)
            try:
                for launch in self.stages(native).values():
                    launch()
            except BaseException:
                self._abandon()
                raise
        return self._returned

    def append(self, keys: Any, values: Any = None, *, tokens: int | None = None) -> None:
        """Add tokens keys [B, Hkv, T, D], values [B, Hkv, T, E] behind every sequence, in place.

        Of a cache that reads an owner's rows: pass those, as to `Cache.append`, after T = `tokens` more were written
        behind every sequence. What does not fit in the planned capacity is dropped, which `check` says.

        Raises
        ------
        TypeError, ValueError
            Before anything is launched, for tokens of another library, dtype, shape, layout or alignment; for rows that
            lie elsewhere than when the step was planned, or whose block table has another shape.
        """
        with callers_stream(self.cache.array_type):
            held = self.cache.rows
            if isinstance(held, OwnedElsewhere):
                new = self._read(*require_grown(held, self.cache.array_type, keys, values, tokens))
            else:
                new = self._write(keys, values, tokens)
            self._index(*new)
            advance_spans(self.spans, self.status, new[0].shape[2], self.slots)

    def check(self) -> None:
        """Wait for the current stream; RuntimeError with all that went wrong in runs and appends since the last check.

        After launches on another stream, synchronise that one first.
        """
        with callers_stream(self.cache.array_type):
            found = int(self.status[0])
            self.status.fill(0)
        require_no(found)

    def stages(self, query: Any) -> dict[str, Callable[[], None]]:
        """What a step launches on CuPy's stream, by name and in order, to be timed apart. Nothing is checked.

        The query is a CuPy array of the shape, dtype and layout that `run` takes. A stage relies on those before it:
        each has to run once, in this order, before any runs again.
        """
        raise NotImplementedError

    def _write(self, keys: Any, values: Any, tokens: int | None) -> tuple[Any, Any]:
        """New tokens, then also in the plan's rows if it has any."""
        require_tokens(keys, tokens)
        new = self._native("keys", keys), self._native("values", values)
        count = new[0].shape[2] if new[0].ndim == 4 else 0
        if count < 1:
            raise ValueError(f"keys has shape {tuple(new[0].shape)}: pass [B, Hkv, T, D] with at least one token.")
        held, lengths = self.cache.rows, (self.cache.rows.shape[3], self.cache.rows.value_dim)
        for name, array, dtype, length in zip(("keys", "values"), new, held.dtypes, lengths, strict=True):
            checked(name, array, dtype, (*held.shape[:2], count, length), alignment=16)
        if self.rows is not None:
            append_into(self.rows.keys, new[0], self.spans)
            append_into(self.rows.values, new[1], self.spans)
        return new

    def _read(self, grown: Rows, count: int) -> tuple[Any, Any]:
        """Copies of the tokens that the owner has written behind every sequence."""
        self.rows.follow(grown)
        if count not in self._grown:
            zeros, shape = import_module("cupy").zeros, (*self.rows.shape[:2], count, self.rows.shape[3])
            self._grown[count] = zeros(shape, dtype=self.dtype), zeros(shape, dtype=self.dtype)
        new = self._grown[count]
        read_into(*new, self.rows, self.spans)
        return new

    def _abandon(self) -> None:
        """Undo what a step that was cut short has left."""

    def _index(self, keys: Any, values: Any) -> None:
        """Add new tokens to the index; a step without one has nothing to do."""

    def _native(self, name: str, array: Any) -> Any:
        kind = self.cache.array_type
        if not kind.startswith("torch"):
            return array
        if array_type(array, name) != kind:
            raise TypeError(f"{name} is of type {type(array).__name__} and the cache holds {kind} arrays: pass those.")
        return to_native(name, array)
