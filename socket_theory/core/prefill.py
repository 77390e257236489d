"""Exact causal softmax attention of many query tokens, in blocks whose states are merged (C1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from socket_theory.core.array_types import array_type, from_native, to_native
from socket_theory.core.cache import Cache
from socket_theory.core.checks import cast_output, require_finite, require_float, require_head_ratio
from socket_theory.core.inputs import flatten_batch
from socket_theory.core.rows import Rows

_QUERY_BLOCK = 256
_KEY_BLOCK = 2048


@dataclass(frozen=True, eq=False)
class Prefill:
    """The result of `prefill`.

    Parameters
    ----------
    value : array [..., Hq, T, E]
        Outputs of all tokens, in the queries' dtype or `out_dtype`; 0 for padding.
    lse : array [..., Hq, T]
        Natural log of the total weight of each; -inf for padding.
    cache : Cache
        To go on from.
    carry : object or None
        What the method hands on to the next layer.
    frozen : tuple of str
        Names of what the index has from an earlier chunk and did not measure on these tokens.
    """

    value: Any
    lse: Any
    cache: Cache
    carry: Any = None
    frozen: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: Any, lse: Any, dtype: Any, cache: Cache, frozen: tuple[str, ...]) -> Prefill:
        """Of the backend's arrays [B, Hq, T, E] and [B, Hq, T]."""
        shaped = [a.reshape(*cache.batch_shape, *a.shape[1:]) for a in (cast_output(value, dtype), lse)]
        return cls(
            from_native(shaped[0], cache.array_type), from_native(shaped[1], cache.array_type), cache, None, frozen
        )


def checked_chunk(query: Any, cache: Cache, least: int, most: int | None) -> Any:
    """Queries [..., Hq, T, D] for `least` to `most` tokens of a cache, None for any, as the backend's [B, Hq, T, D].

    Raises TypeError or ValueError for another array library, shape, number of tokens or head ratio.
    """
    kind = array_type(query, "query")
    if kind != cache.array_type:
        raise TypeError(f"query is a {kind} array and keys are {cache.array_type} arrays: pass one library.")
    require_float("query", query.dtype)
    native, batch, (_, kv_heads, _, dim) = to_native("query", query), cache.batch_shape, cache.rows.shape
    fits = native.ndim == len(batch) + 3 and native.shape[: len(batch)] == batch and native.shape[-1] == dim
    if not fits or native.shape[-2] < least or (most is not None and native.shape[-2] > most):
        tokens = "tokens" if most is None else least if least == most else f"{least} to {most}"
        raise ValueError(
            f"query of shape {tuple(native.shape)} was given: pass {(*batch, 'num_qo_heads', tokens, dim)}."
        )
    native = flatten_batch(native, len(batch))
    require_head_ratio(native.shape[1], kv_heads)
    return native


def causal_attention(query: Any, rows: Rows, first: Any, sm_scale: float) -> tuple[Any, Any]:
    """value [B, Hq, T, E] and lse [B, Hq, T] of queries [B, Hq, T, D], in float64.

    Query t of sequence b is at the slot first[b] + t and attends to the valid slots up to that one. Time T N D, memory
    for blocks of 256 queries and 2048 keys.

    Raises
    ------
    ValueError
        If a query at a valid slot holds NaN or infinity.
    """
    place = rows.backend.to_device
    batch, heads, tokens, _ = query.shape
    group = heads // rows.shape[1]
    value = place(np.zeros((batch, heads, tokens, rows.value_dim)))
    lse = place(np.full((batch, heads, tokens), -np.inf))
    starts = np.broadcast_to(first, batch)
    for row, (start, length) in enumerate(np.asarray(rows.kv_range).tolist()):
        at = int(starts[row])
        seen = range(max(start, at), min(start + length, at + tokens))
        require_finite("query", query[row, :, seen.start - at : seen.stop - at])
        for begin in range(seen.start, seen.stop, _QUERY_BLOCK):
            slots = np.arange(begin, min(begin + _QUERY_BLOCK, seen.stop))
            some = slice(slots[0] - at, slots[-1] + 1 - at)
            for kv_head in range(rows.shape[1]):
                mine = slice(kv_head * group, (kv_head + 1) * group)
                asked = sm_scale * query[row, mine, some].astype(np.float64)
                value[row, mine, some], lse[row, mine, some] = _block(asked, rows, row, kv_head, start, slots)
    return value, lse


def _block(asked: Any, rows: Rows, row: int, kv_head: int, start: int, slots: Any) -> tuple[Any, Any]:
    """State [group, n, E], [group, n] of scaled queries [group, n, D] at `slots` [n] over the slots from `start` on."""
    top: Any = None
    total: Any = 0
    weighted: Any = 0
    for begin in range(start, int(slots[-1]) + 1, _KEY_BLOCK):
        stop = min(begin + _KEY_BLOCK, int(slots[-1]) + 1)
        keys, values = (array.astype(np.float64) for array in rows.read(row, kv_head, slice(begin, stop)))
        logits = asked @ keys.T
        if stop > slots[0]:
            hidden = rows.backend.to_device(np.arange(begin, stop) > slots[:, None])
            logits = np.where(hidden, -np.inf, logits)
        largest = logits.max(axis=-1, keepdims=True)
        if bool(((largest != largest) | (largest == np.inf)).any()):
            raise ValueError("a weight is NaN or infinite: check query and keys, also those that another owner writes.")
        reference = largest if top is None else np.maximum(top, largest)
        weights = np.exp(logits - reference)
        kept = 0 if top is None else np.exp(top - reference)
        total = weights.sum(axis=-1, keepdims=True) + kept * total
        weighted = weights @ values + kept * weighted
        top = reference
    return weighted / total, (top + np.log(total))[..., 0]
