"""What a prefill asks a method for, and exact causal softmax attention of many query tokens in blocks (C1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from socket_theory.core.cache import Cache
from socket_theory.core.rows import Rows

_QUERY_BLOCK = 256
_KEY_BLOCK = 2048


@dataclass(frozen=True, eq=False)
class Chunk:
    """The tokens of a prefill, checked, as `Method.causal` gets them.

    Parameters
    ----------
    query : array [B, Hq, T, D]
        In the backend's array type, finite at valid slots.
    first : int array [B]
        The slot of the first query of each sequence in `cache`.
    cache : Cache
        With these tokens in it.
    before : Cache or None
        Of the chunks before.
    new : Rows or None
        The tokens of this chunk alone, for a method that keeps no rows; else they are rows of `cache`.
    sm_scale : float
    """

    query: Any
    first: Any
    cache: Cache
    before: Cache | None
    new: Any
    sm_scale: float

    @property
    def valid(self) -> Any:
        """Which tokens are valid ones and no padding, bool [B, T]."""
        slots = self.first[:, None] + np.arange(self.query.shape[2])
        start, length = self.cache.kv_range[:, :1], self.cache.kv_range[:, 1:]
        return self.cache.backend.to_device((slots >= start) & (slots < start + length))


def causal_attention(query: Any, rows: Rows, first: Any, sm_scale: float) -> tuple[Any, Any]:
    """value [B, Hq, T, E] and lse [B, Hq, T] of queries [B, Hq, T, D], in float64.

    Query t of sequence b is at the slot first[b] + t and attends to the valid slots up to that one. Time T N D, memory
    for blocks of 256 queries and 2048 keys.
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
