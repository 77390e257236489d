"""One decode step: the checked query with what it reads, and the estimate in the caller's types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from socket_theory.core.array_types import array_type, from_native, to_native
from socket_theory.core.backend import Backend
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
from socket_theory.core.estimate import Estimate, Outcome, Stats
from socket_theory.core.index import Index
from socket_theory.core.inputs import flatten_batch
from socket_theory.core.rng import Key
from socket_theory.core.rows import Rows
from socket_theory.core.selection import Budget


@dataclass(frozen=True, eq=False)
class Step:
    """A validated decode step, as `Method.step` gets it.

    Parameters
    ----------
    query : array [B, Hq, D]
        One token of each sequence, in the backend's array type.
    cache : Cache
        What it attends to; `rows`, `index`, `sample` and `backend` are the cache's.
    sm_scale : float
    budget, key, carry : optional
        What `attend` was given, None where the method does not take it.
    """

    query: Any
    cache: Cache
    sm_scale: float
    budget: Budget | None = None
    key: Key | None = None
    carry: Any = None

    @property
    def rows(self) -> Rows:
        return self.cache.rows

    @property
    def index(self) -> Index:
        return self.cache.index

    @property
    def sample(self) -> Any:
        return self.cache.sample

    @property
    def backend(self) -> Backend:
        return self.cache.backend

    @property
    def shared(self) -> bool:
        """Whether the scores of a KV head's query heads are to be added, so that they must be on one scale."""
        return self.budget is not None and self.budget.per == "kv_head"

    def everything(self) -> Any:
        """Every valid slot as an index list for each head, int32 [B, Hq, N]."""
        start, length = self.rows.kv_range[:, :1], self.rows.kv_range[:, 1:]
        steps = np.arange(length.max())
        slots = np.where(steps < length, start + steps, -1).astype(np.int32)
        return self.backend.to_device(np.repeat(slots[:, None], self.query.shape[1], axis=1))

    def checked_scores(self, scores: Any) -> Any:
        """What the method's `scores` returned, in float32.

        Raises
        ------
        TypeError, ValueError
            Naming the method, for anything but floats [B, Hq, N] in the backend's array type, NaN, or numbers that
            float32 cannot hold.
        """
        name, block = f"{type(self.cache.method).__name__}.scores", self.backend.slot_block
        _, kv_heads, slots, _ = self.rows.shape
        want = (*self.query.shape[:2], slots)
        kind = type(scores)
        known = kind is type(self.query) or kind is type(self.backend.to_device(np.zeros(1, dtype=np.float32)))
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
        group = self.query.shape[1] // kv_heads
        largest = float(np.finfo(np.float32).max) / group if self.shared else np.inf
        for row, (start, length) in enumerate(self.rows.kv_range.tolist()):
            seen, given = (a[row, :, start : start + length] for a in (ranked, scores))
            if bool((seen != seen).any()):
                raise ValueError(f"{name} returned NaN: return numbers, they decide which tokens are kept.")
            if ranked is not scores and bool(((abs(seen) == np.inf) & (abs(given) < np.inf)).any()):
                raise ValueError(f"{name} returned numbers beyond float32: scale them, or return their logarithms.")
            if bool(((abs(seen) > largest) & (seen > -np.inf)).any()):
                raise ValueError(f"{name} returned numbers beyond {largest:.2g}: a group adds them, so scale them.")
        return ranked


def checked_method(cache: Any, method: Any) -> None:
    """TypeError for anything but a cache, ValueError for one of another method."""
    if not isinstance(cache, Cache):
        raise TypeError(f"cache is of type {type(cache).__name__}: pass what prepare returned.")
    if cache.method != method:
        same_index = method.index_recipe == cache.method.index_recipe
        way = "pass cache.with_method(method)" if same_index else f"prepare one with {method}"
        raise ValueError(f"the cache was prepared by {cache.method}: attend with it, or {way}.")


def checked_query(query: Any, cache: Any, method: Any) -> Any:
    """A query as the backend's array [B, Hq, D], or [B, Hq, T, D] for T tokens.

    Raises
    ------
    TypeError, ValueError
        For a cache of another method, another array library, a wrong shape or head ratio, more tokens than a sequence
        has, or NaN.
    """
    checked_method(cache, method)
    kind = array_type(query, "query")
    if kind != cache.array_type:
        raise TypeError(f"query is a {kind} array and the cache holds {cache.array_type} arrays: pass one library.")
    require_float("query", query.dtype)
    native = to_native("query", query)
    batch, (_, kv_heads, _, dim) = cache.batch_shape, cache.rows.shape
    axes = native.ndim - len(batch)
    if axes not in (2, 3) or native.shape[: len(batch)] != batch or native.shape[-1] != dim or 0 in native.shape:
        raise ValueError(
            f"query of shape {tuple(native.shape)} was given: pass {(*batch, 'num_qo_heads', dim)}, "
            f"or {(*batch, 'num_qo_heads', 'tokens', dim)} for the last tokens of each sequence."
        )
    native = flatten_batch(native, len(batch))
    require_head_ratio(native.shape[1], kv_heads)
    require_finite("query", native)
    if axes == 3 and native.shape[2] > (fewest := int(cache.kv_range[:, 1].min())):
        raise ValueError(
            f"a query of {native.shape[2]} tokens was given and a sequence of the cache has {fewest}: "
            "append the keys and values of all of them first."
        )
    return native


def checked_scale(sm_scale: float | None, head_dim: int) -> float:
    """`sm_scale`, or 1/sqrt(head_dim) for None. Raises TypeError or ValueError unless it is a number above 0."""
    scale = 1 / float(np.sqrt(head_dim)) if sm_scale is None else require_positive("sm_scale", sm_scale)
    require_finite("sm_scale", np.asarray(scale))
    return scale


def finish(step: Step, outcome: Outcome, out_dtype: Any) -> Estimate:
    """The estimate in the caller's array type, dtype and batch shape."""
    cache, batch = step.cache, step.cache.batch_shape
    shaped = [
        array.reshape(*batch, *array.shape[1:])
        for array in (cast_output(outcome.value, out_dtype), outcome.lse, outcome.used)
    ]
    value, lse, used = (from_native(array, cache.array_type) for array in shaped)
    return Estimate(value, lse, used, _stats(step, outcome), outcome.weighting, outcome.carry)


def _stats(step: Step, outcome: Outcome) -> Stats:
    cache, rows = step.cache, step.rows
    used = step.backend.to_host(outcome.used)
    (batch, kv_heads, slots, dim), batch_shape = rows.shape, cache.batch_shape
    kept = (used >= 0).sum(axis=-1)
    index_bytes = cache.index.bytes_per_token(rows)
    key_bytes, value_bytes = (np.dtype(dtype).itemsize for dtype in rows.dtypes)
    read = np.zeros((batch, kv_heads, slots + 1), dtype=bool)
    np.put_along_axis(read, used.reshape(batch, kv_heads, -1).astype(np.int64), True, axis=-1)
    union = read[..., :slots].sum(axis=(1, 2))
    tokens = rows.kv_range[:, 1]
    keys_read = tokens * kv_heads if cache.method.reads_every_key else union
    row_bytes = dim * key_bytes * keys_read + rows.value_dim * value_bytes * union if cache.method.keeps_rows else 0
    mass = outcome.captured_mass
    return Stats(
        kept=kept.reshape(*batch_shape, -1),
        density=(kept / rows.kv_range[:, 1:]).reshape(*batch_shape, -1),
        nominal_bits=cache.method.nominal_bits,
        bits_per_token=8 * index_bytes // kv_heads,
        bytes=(cache.index.bytes_per_step() + index_bytes * tokens + row_bytes).reshape(batch_shape),
        captured_mass=None if mass is None else mass.reshape(*batch_shape, -1),
    )


def single_steps(
    query: Any, cache: Cache, sm_scale: float, budget: Budget | None, key: Key | None, carry: Any
) -> Iterator[Step]:
    """The steps of queries [B, Hq, T, D]: token t over the cache without the T - 1 - t tokens behind it."""
    count = query.shape[2]
    if carry is not None and (not isinstance(carry, tuple) or len(carry) != count):
        raise ValueError(f"carry={carry!r} was given for {count} tokens: pass a tuple of one for each.")
    for token in range(count):
        behind = count - 1 - token
        seen = cache.truncate(cache.kv_len - behind) if behind else cache
        drawn_by = None if key is None else key.fold_in("token", token)
        mine = None if carry is None else carry[token]
        yield Step(query[:, :, token].copy(), seen, sm_scale, budget, drawn_by, mine)


def stack(estimates: list[Estimate]) -> Estimate:
    """Estimates of single tokens as one, the token axis behind that of query heads."""
    library = import_module(type(estimates[0].value).__module__.split(".")[0])
    stats = [estimate.stats for estimate in estimates]
    longest = max(estimate.indices.shape[-1] for estimate in estimates)
    indices = []
    for used in (estimate.indices for estimate in estimates):
        missing = longest - used.shape[-1]
        filler = library.broadcast_to(used[..., :1] * 0 - 1, (*used.shape[:-1], missing)) if missing else used[..., :0]
        indices.append(library.concatenate([used, filler], -1))
    masses = [one.captured_mass for one in stats]
    return Estimate(
        library.stack([estimate.value for estimate in estimates], -2),
        library.stack([estimate.lse for estimate in estimates], -1),
        library.stack(indices, -2),
        Stats(
            np.stack([one.kept for one in stats], -1),
            np.stack([one.density for one in stats], -1),
            stats[0].nominal_bits,
            stats[0].bits_per_token,
            np.sum([one.bytes for one in stats], axis=0),
            None if any(mass is None for mass in masses) else np.stack(masses, -1),
        ),
        estimates[0].kind,
        tuple(one.carry for one in estimates) if estimates[0].carry is not None else None,
    )


def output_dtype(out_dtype: Any) -> Any:
    """NumPy's dtype of a float dtype of NumPy, ml_dtypes or torch, or its name; TypeError for others."""
    name = require_float("out_dtype", np.dtype(out_dtype) if isinstance(out_dtype, type) else out_dtype)
    return bfloat16() if name == "bfloat16" else np.dtype(name)
