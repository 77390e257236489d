"""One decode step: the checked query, and the estimate in the caller's types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from socket_theory.core.array_types import array_type, from_native, to_native
from socket_theory.core.cache import Cache
from socket_theory.core.checks import (
    FLOAT_NAMES,
    bfloat16,
    cast_output,
    require_finite,
    require_float,
    require_head_ratio,
    require_positive,
)
from socket_theory.core.estimate import Estimate, Stats
from socket_theory.core.inputs import flatten_lead

if TYPE_CHECKING:
    from socket_theory.core.method import Method


@dataclass(frozen=True, eq=False)
class Step:
    """A validated decode step: the query as the backend's array [B, Hq, D], and how to hand results back."""

    query: Any
    cache: Cache
    sm_scale: float
    out_dtype: Any
    shared: bool = False
    """Whether the scores of a KV head's query heads are to be added, so that they must be on one scale."""

    @classmethod
    def start(cls, method: Method, query: Any, cache: Cache, sm_scale: float | None, out_dtype: Any | None) -> Step:
        """Check a query against a cache.

        Raises
        ------
        TypeError, ValueError
            For a cache of another method, another array library, a wrong shape or head ratio, NaN, or sm_scale <= 0.
        """
        if not isinstance(cache, Cache):
            raise TypeError(f"cache is of type {type(cache).__name__}: pass what prepare returned.")
        if cache.method != method:
            same_index = method.index_recipe == cache.method.index_recipe
            way = "pass cache.with_method(method)" if same_index else f"prepare one with {method}"
            raise ValueError(f"the cache was prepared by {cache.method}: attend with it, or {way}.")
        kind = array_type(query, "query")
        if kind != cache.array_type:
            raise TypeError(f"query is a {kind} array and the cache holds {cache.array_type} arrays: pass one library.")
        require_float("query", query.dtype)
        native = to_native("query", query)
        lead = cache.lead
        if native.ndim != len(lead) + 2 or native.shape[:-2] != lead or native.shape[-1] != cache.keys.shape[-1]:
            one_token = native.shape[:-3] == lead and native.shape[-2:] == (1, cache.keys.shape[-1])
            hint = ", as query[..., 0, :] has it" if one_token else ""
            raise ValueError(
                f"query of shape {tuple(native.shape)} was given: "
                f"pass {(*lead, 'num_qo_heads', cache.keys.shape[-1])}, one token a sequence{hint}."
            )
        native = flatten_lead(native, len(lead))
        require_head_ratio(native.shape[1], cache.keys.shape[1])
        require_finite("query", native)
        scale = 1 / float(np.sqrt(native.shape[-1])) if sm_scale is None else require_positive("sm_scale", sm_scale)
        require_finite("sm_scale", np.asarray(scale))
        dtype = native.dtype if out_dtype is None else output_dtype(out_dtype)
        return cls(native, cache, scale, dtype)

    def everything(self) -> Any:
        """Every valid slot as an index list for each head, int32 [B, Hq, N]."""
        start, length = self.cache.spans[:, :1], self.cache.spans[:, 1:]
        steps = np.arange(length.max())
        slots = np.where(steps < length, start + steps, -1).astype(np.int32)
        return self.cache.backend.to_device(np.repeat(slots[:, None], self.query.shape[1], axis=1))

    def checked_scores(self, scores: Any) -> Any:
        """What the method's `scores` returned, in float32.

        Raises
        ------
        TypeError, ValueError
            Naming the method, for anything but floats [B, Hq, N] in the backend's array type, NaN, or numbers that
            float32 cannot hold.
        """
        cache = self.cache
        name, slots, block = f"{type(cache.method).__name__}.scores", cache.keys.shape[-2], cache.backend.slot_block
        want = (*self.query.shape[:2], slots)
        kind = type(scores)
        known = kind is type(self.query) or kind is type(cache.backend.to_device(np.zeros(1, dtype=np.float32)))
        if not known or str(scores.dtype) not in FLOAT_NAMES:
            array = f"{type(self.query).__module__}.{type(self.query).__name__}"
            given = f"dtype {scores.dtype}" if known else f"an object of type {kind.__module__}.{kind.__name__}"
            raise TypeError(f"{name} returned {given}: return a float32 {array} {want}, as step.query is one.")
        if scores.shape not in (want, (*want[:2], -(-slots // block) * block)):
            raise ValueError(
                f"{name} returned the shape {tuple(scores.shape)}: return {want}, "
                "a score for each sequence, query head (not KV head) and token slot."
            )
        with np.errstate(over="ignore"):
            ranked = scores if scores.dtype == np.float32 else scores.astype(np.float32)
        group = self.query.shape[1] // cache.keys.shape[1]
        largest = float(np.finfo(np.float32).max) / group if self.shared else np.inf
        for row, (start, length) in enumerate(cache.spans.tolist()):
            seen, given = (a[row, :, start : start + length] for a in (ranked, scores))
            if bool((seen != seen).any()):
                raise ValueError(f"{name} returned NaN: return numbers, they decide which tokens are kept.")
            if ranked is not scores and bool(((abs(seen) == np.inf) & (abs(given) < np.inf)).any()):
                raise ValueError(f"{name} returned numbers beyond float32: scale them, or return their logarithms.")
            if bool(((abs(seen) > largest) & (seen > -np.inf)).any()):
                raise ValueError(f"{name} returned numbers beyond {largest:.2g}: a group adds them, so scale them.")
        return ranked

    def finish(self, value: Any, lse: Any, indices: Any, kind: Any = "softmax", captured_mass: Any = None) -> Estimate:
        """The estimate in the caller's array type, dtype and leading shape."""
        cache, lead = self.cache, self.cache.lead
        shaped = [a.reshape(*lead, *a.shape[1:]) for a in (cast_output(value, self.out_dtype), lse, indices)]
        stats = self._stats(cache.backend.to_host(indices), captured_mass)
        value, lse, indices = (from_native(a, cache.array_type) for a in shaped)
        return Estimate(value, lse, indices, stats, kind)

    def _stats(self, indices: Any, captured_mass: Any) -> Stats:
        cache, batch = self.cache, len(indices)
        kept = (indices >= 0).sum(axis=-1)
        parts = {name: array for name, array in cache.arrays.items() if name not in ("keys", "values")}
        slots = cache.keys.shape[-2]
        padded = -(-slots // cache.backend.slot_block) * cache.backend.slot_block
        index_bytes = sum(array[0].nbytes // padded for array in parts.values())
        key_bytes, value_bytes = cache.keys[0, 0, 0].nbytes, cache.values[0, 0, 0].nbytes
        used = np.zeros((batch, cache.keys.shape[1], slots + 1), dtype=bool)
        grouped = indices.reshape(batch, cache.keys.shape[1], -1)
        np.put_along_axis(used, grouped.astype(np.int64), True, axis=-1)
        rows = used[..., :slots].sum(axis=(1, 2))
        tokens, lead = cache.spans[:, 1], cache.lead
        keys_read = tokens * cache.keys.shape[1] if cache.method.reads_every_key else rows
        return Stats(
            kept=kept.reshape(*lead, -1),
            density=(kept / cache.spans[:, 1:]).reshape(*lead, -1),
            nominal_bits=cache.method.nominal_bits,
            bits_per_token=8 * index_bytes // cache.keys.shape[1],
            bytes=(index_bytes * tokens + key_bytes * keys_read + value_bytes * rows).reshape(lead),
            captured_mass=None if captured_mass is None else captured_mass.reshape(*lead, -1),
        )


def output_dtype(out_dtype: Any) -> Any:
    """NumPy's dtype of a float dtype of NumPy, ml_dtypes or torch, or its name; TypeError for others."""
    name = require_float("out_dtype", np.dtype(out_dtype) if isinstance(out_dtype, type) else out_dtype)
    return bfloat16() if name == "bfloat16" else np.dtype(name)
