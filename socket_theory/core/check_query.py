"""Checks of the query and of what is passed with it; T tokens as single steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from socket_theory.core.array_types import array_type, to_native
from socket_theory.core.cache import Cache
from socket_theory.core.checks import (
    require_finite,
    require_float,
    require_head_ratio,
    require_positive,
)
from socket_theory.core.index import SumIndex
from socket_theory.core.inputs import flatten_batch
from socket_theory.core.rng import Key
from socket_theory.core.selection import Budget
from socket_theory.core.step import Step


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


def single_steps(
    query: Any, cache: Cache, sm_scale: float, budget: Budget | None, key: Key | None, carry: Any
) -> Iterator[Step]:
    """The steps of queries [B, Hq, T, D]: token t over the cache without the T - 1 - t tokens behind it."""
    count = query.shape[2]
    if count > 1 and isinstance(cache.index, SumIndex):
        raise ValueError(
            f"a query of {count} tokens was given and {type(cache.method).__name__} keeps sums over tokens, which it "
            "cannot read as they were before the last ones: pass the newest token, or all new ones to prefill."
        )
    if carry is not None and (not isinstance(carry, tuple) or len(carry) != count):
        raise ValueError(f"carry={carry!r} was given for {count} tokens: pass a tuple of one for each.")
    for token in range(count):
        behind = count - 1 - token
        seen = cache.truncate(cache.kv_len - behind) if behind else cache
        drawn_by = None if key is None else key.fold_in("token", token)
        mine = None if carry is None else carry[token]
        yield Step(query[:, :, token].copy(), seen, sm_scale, budget, drawn_by, mine)
