"""The body of `Method.prefill`, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from socket_theory.core.array_types import array_type, callers_stream, from_native, to_native
from socket_theory.core.cache import Cache
from socket_theory.core.causal import Chunk
from socket_theory.core.check_query import checked_method, checked_scale
from socket_theory.core.checks import cast_output, require_finite, require_float, require_head_ratio
from socket_theory.core.definition import refuse
from socket_theory.core.finish import output_dtype
from socket_theory.core.inputs import check_key_values, flatten_batch
from socket_theory.core.owned_elsewhere import OwnedElsewhere
from socket_theory.core.rows import DenseRows, Rows

if TYPE_CHECKING:
    from socket_theory.core.method import Method


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


def prefilled(
    method: Method,
    query: Any,
    keys: Any,
    values: Any,
    cache: Cache | None,
    sm_scale: float | None,
    out_dtype: Any,
    prepared_with: dict[str, Any],
) -> Prefill:
    """What `Method.prefill` returns, whose arguments these are; `Method.causal` gives the outputs."""
    owned = isinstance(keys, OwnedElsewhere)
    given = None if owned else check_key_values(keys, values)[:2]
    tokens = given[0].shape[-2] if given else None
    if cache is None:
        grown = method.prepare(keys, values, **prepared_with)
        native = checked_chunk(query, grown, tokens or int(grown.rows.ends.max()), tokens or grown.rows.shape[2])
        for row, (start, length) in enumerate(grown.kv_range.tolist()):
            require_finite("query", native[row, :, start : start + length])
    else:
        refuse(method, **prepared_with)
        checked_method(cache, method)
        native = checked_chunk(query, cache, tokens or 1, tokens)
        require_finite("query", native)
    dtype = native.dtype if out_dtype is None else output_dtype(out_dtype)
    scale = checked_scale(sm_scale, native.shape[-1])
    if cache is not None:
        grown = cache.append(keys, values, tokens=native.shape[2] if owned else None)
    first = np.zeros(len(grown.kv_range), np.int64) if cache is None else cache.rows.ends
    new = None if method.keeps_rows else _own_rows(keys, given, grown, native.shape[2])
    with callers_stream(grown.array_type):
        value, lse = method.causal(Chunk(native, first, grown, cache, new, scale))
    return Prefill.of(value, lse, dtype, grown, () if cache is None else tuple(cache.index.frozen))


def _own_rows(keys: Any, given: tuple[Any, Any] | None, grown: Cache, tokens: int) -> Rows:
    """The tokens that were given, as arrays or, of the first chunk only, as an owner's rows."""
    if given is None:
        owner = keys.native()[0].bind(grown.kv_range, grown.backend)
        return DenseRows(owner.keys[:, :, :tokens], owner.values[:, :, :tokens], None, grown.backend)
    own, own_values = (flatten_batch(array, len(grown.batch_shape)) for array in given)
    return DenseRows(own, own_values, None, grown.backend)
