"""What every planned step shares: a cache that grows in place, a status word on the device, the caller's arrays."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.core._launch import checked, settle
from socket_gpu.core.append import advance_spans, append_into
from socket_gpu.core.rows import DeviceRows
from socket_theory.core.array_types import array_type, callers_stream, from_native, to_native
from socket_theory.core.cache import Cache
from socket_theory.core.checks import require_count, require_head_ratio, require_positive
from socket_theory.core.finish import output_dtype
from socket_theory.core.plans import require_no
from socket_theory.core.rows import DenseRows


class PlannedStep:
    """Buffers and launches of one layer's step over one cache, planned once and run many times.

    Queries and tokens are CuPy arrays, or torch CUDA tensors where the cache was prepared from them; kernels are
    launched on CuPy's, or torch's, current stream. `spans` int64 [B, 2] hold (kv_start, kv_len) on the device; those of
    `cache`, on the host, stay as they were planned.

    Raises
    ------
    TypeError, ValueError
        For a cache of another backend or of rows that somebody else owns, values of another dtype or head_dim than
        keys, a wrong head ratio, or an out_dtype that is no float.
    """

    def __init__(self, cache: Cache, num_qo_heads: int, sm_scale: float | None, out_dtype: Any) -> None:
        cupy = import_module("cupy")
        if cache.backend.name != "cupy":
            raise ValueError(f"the cache is on backend {cache.backend.name!r}: prepare it with CuPy or CUDA arrays.")
        if not isinstance(cache.rows, DenseRows):
            raise TypeError(
                f"the cache reads {type(cache.rows).__name__} and a plan reads and appends to rows of its cache's own: "
                "pass a cache prepared from arrays keys and values."
            )
        keys, values = cache.keys, cache.values
        if values.dtype != keys.dtype or values.shape != keys.shape:
            raise ValueError(
                f"values are {values.dtype} {values.shape} and keys {keys.dtype} {keys.shape}: "
                "pass values of the keys' dtype and head_dim."
            )
        with callers_stream(cache.array_type):
            settle()  # what is read below was written there
        self.cache = cache
        self.rows = DeviceRows.of(cache.rows)
        batch, heads, self.slots, dim = cache.keys.shape
        self.group = require_head_ratio(require_count("num_qo_heads", num_qo_heads), heads)
        self.sm_scale = 1 / float(np.sqrt(dim)) if sm_scale is None else require_positive("sm_scale", sm_scale)
        self.spans = cupy.asarray(cache.kv_range)
        self.status = cupy.zeros(1, dtype=np.uint32)
        wide = np.float64 if cache.keys.dtype.itemsize == 8 else np.float32
        dtype = cache.keys.dtype if out_dtype is None else output_dtype(out_dtype)
        self.value = cupy.empty((batch, num_qo_heads, dim), dtype=dtype)
        self.lse = cupy.empty((batch, num_qo_heads), dtype=wide)
        self._returned = from_native(self.value, cache.array_type), from_native(self.lse, cache.array_type)

    def run(self, query: Any) -> tuple[Any, Any]:
        """One step for queries [B, Hq, D] of the cache's dtype: (value, lse), which are the plan's own.

        Raises
        ------
        TypeError, ValueError
            Before anything is launched, for a query of another library, dtype, shape or layout.
        """
        shape = (*self.value.shape[:2], self.cache.keys.shape[-1])
        with callers_stream(self.cache.array_type):
            native = checked("query", self._native("query", query), self.cache.keys.dtype, shape, alignment=4)
            try:
                for launch in self.stages(native).values():
                    launch()
            except BaseException:
                self._abandon()
                raise
        return self._returned

    def append(self, keys: Any, values: Any) -> None:
        """Add tokens keys, values [B, Hkv, T, D] behind every sequence, in place.

        What does not fit in the planned capacity is dropped, which `check` says.

        Raises
        ------
        TypeError, ValueError
            Before anything is launched, for tokens of another library, dtype, shape, layout or alignment.
        """
        with callers_stream(self.cache.array_type):
            new = [self._native(name, rows) for name, rows in (("keys", keys), ("values", values))]
            tokens = new[0].shape[2] if new[0].ndim == 4 else 0
            if tokens < 1:
                raise ValueError(f"keys has shape {tuple(new[0].shape)}: pass [B, Hkv, T, D] with at least one token.")
            shape = (*self.cache.keys.shape[:2], tokens, self.cache.keys.shape[-1])
            for name, rows in zip(("keys", "values"), new, strict=True):
                checked(name, rows, self.cache.keys.dtype, shape, alignment=16)
            append_into(self.cache.keys, new[0], self.spans)
            append_into(self.cache.values, new[1], self.spans)
            self._index(*new)
            advance_spans(self.spans, self.status, tokens, self.slots)

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
