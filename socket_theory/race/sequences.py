"""Queries, keys and values of whole sequences, checked and in one shape, for functions that keep nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from socket_theory.core.attention import AttentionState, require_arrays
from socket_theory.core.checks import require_finite, require_flag, require_head_ratio
from socket_theory.core.hashing import Planes
from socket_theory.core.inputs import check_key_values, flatten_batch, make_kv_range


@dataclass(frozen=True, eq=False)
class Sequences:
    """query [B, Hq, T, D], keys [B, Hkv, N, D] and values [B, Hkv, N, E] of B sequences, valid at `kv_range` [B, 2]."""

    query: Any
    keys: Any
    values: Any
    kv_range: Any
    batch_shape: tuple[int, ...]

    @property
    def first(self) -> int:
        """The slot of the first of the T queries, which are the last ones."""
        return int(self.keys.shape[2] - self.query.shape[2])

    @property
    def valid(self) -> Any:
        """Which slots hold a token, bool [B, N]."""
        slots, start, length = np.arange(self.keys.shape[2]), self.kv_range[:, :1], self.kv_range[:, 1:]
        return (slots >= start) & (slots < start + length)

    def state(self, value: Any, lse: Any) -> AttentionState:
        """value [B, Hq, T, E] and lse [B, Hq, T] in the batch shape that was given."""
        value, lse = (array.reshape(*self.batch_shape, *array.shape[1:]) for array in (value, lse))
        return AttentionState(value, lse, "angular")


def checked_sequences(query: Any, keys: Any, values: Any, causal: bool, kv_start: Any, kv_len: Any) -> Sequences:
    """Arrays of whole sequences and which of their slots are valid.

    Raises
    ------
    TypeError, ValueError
        For arrays that are not floating NumPy ones, shapes, a head ratio, NaN or infinity among valid tokens or what
        is asked of them, more queries than slots of a causal call, or slots that are none.
    """
    require_arrays(query=query, keys=keys, values=values)
    check_key_values(keys, values)
    batch_shape, slots = keys.shape[:-3], keys.shape[-2]
    fits = query.ndim == keys.ndim and query.shape[:-3] == batch_shape and query.shape[-1] == keys.shape[-1]
    if not fits or 0 in query.shape:
        raise ValueError(
            f"query of shape {query.shape} was given: pass {(*batch_shape, 'num_qo_heads', 'tokens', keys.shape[-1])}."
        )
    require_head_ratio(query.shape[-3], keys.shape[-3])
    if require_flag("causal", causal) and query.shape[-2] > slots:
        raise ValueError(
            f"{query.shape[-2]} query tokens and {slots} slots were given: pass as many keys as queries at least, as "
            "the last query is at the last slot."
        )
    query, keys, values = (flatten_batch(array, len(batch_shape)) for array in (query, keys, values))
    made = Sequences(query, keys, values, make_kv_range(batch_shape, slots, kv_start, kv_len), batch_shape)
    for row, (start, length) in enumerate(made.kv_range.tolist()):
        stop = start + length
        asked = slice(max(start - made.first, 0), max(stop - made.first, 0)) if causal else slice(None)
        for name, seen in (("keys", keys[row, :, start:stop]), ("values", values[row, :, start:stop])):
            require_finite(name, seen)
        require_finite("query", query[row, :, asked])
    return made


def require_planes(planes: Any, head_dim: int) -> Planes:
    """`planes` for vectors of length `head_dim`, else TypeError or ValueError."""
    if not isinstance(planes, Planes):
        raise TypeError(f"planes is of type {type(planes).__name__}: pass Planes, as SignHash(...).draw(key) returns.")
    if planes.head_dim != head_dim:
        raise ValueError(f"planes for vectors of length {planes.head_dim} were given: pass planes for {head_dim}.")
    return planes
