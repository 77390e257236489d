"""Checks of rows that a cache is given after `prepare`: new tokens, and an owner's rows after a change."""

from __future__ import annotations

from typing import Any

import numpy as np

from socket_theory.core.checks import require_count, require_finite
from socket_theory.core.inputs import check_key_values, flatten_batch
from socket_theory.core.owned_elsewhere import OwnedElsewhere
from socket_theory.core.rows import DenseRows, Rows


def new_tokens(
    held: Rows, batch_shape: tuple[int, ...], held_type: str, keys: Any, values: Any, tokens: int | None
) -> Rows:
    """New tokens as rows of their own, checked against those a cache of this batch shape and array type owns."""
    require_tokens(keys, tokens)
    keys, values, kind = check_key_values(keys, values)
    if kind != held_type:
        raise TypeError(f"the cache holds {held_type} arrays and {kind} ones were given: convert them.")
    _, heads, _, dim = held.shape
    want = (*batch_shape, heads, keys.shape[-2], dim)
    if keys.shape != want or values.shape[-1] != held.value_dim:
        raise ValueError(
            f"keys {keys.shape} and values {values.shape} do not fit the cache: "
            f"pass keys {want} and values {(*want[:-1], held.value_dim)}."
        )
    if (keys.dtype, values.dtype) != held.dtypes:
        raise TypeError(
            f"keys of {keys.dtype} and values of {values.dtype} were given to a cache of {held.dtypes[0]} and "
            f"{held.dtypes[1]}: convert them first."
        )
    keys, values = (flatten_batch(array, len(batch_shape)) for array in (keys, values))
    added = keys.shape[-2]
    if held.capacity is not None and int(held.ends.max()) + added > held.capacity:
        raise ValueError(f"appending {added} tokens exceeds capacity={held.capacity}: prepare with a larger one.")
    require_finite("keys", keys)
    require_finite("values", values)
    return DenseRows(keys, values, np.tile(np.array([0, added]), (len(keys), 1)), held.backend)


def grown_rows(
    held: OwnedElsewhere, held_type: str, rows: Any, values: Any, tokens: int | None
) -> tuple[Rows, Rows, int]:
    """The owner's rows after they have grown, copies of the new tokens, and how many each sequence got."""
    grown, count = require_grown(held, held_type, rows, values, tokens)
    if int(held.ends.max()) + count > grown.shape[2]:
        raise ValueError(f"tokens={count} was given and the rows have {grown.shape[2]} slots: pass longer rows.")
    new = grown.bind(held.kv_range, held.backend).tokens(held.ends, count)
    require_finite("keys", new.keys)
    require_finite("values", new.values)
    return grown, new, count


def require_tokens(keys: Any, tokens: int | None) -> None:
    """TypeError for an owner's rows or their number of tokens, given to a cache that owns its rows."""
    if isinstance(keys, OwnedElsewhere) or tokens is not None:
        raise TypeError(
            "the cache reads no rows of another owner: pass the new tokens as arrays keys and values, without tokens=."
        )


def require_grown(held: OwnedElsewhere, held_type: str, rows: Any, values: Any, tokens: int | None) -> tuple[Any, int]:
    """The owner's rows with a backend's arrays, and how many tokens each sequence got, if they are like those held."""
    kind = type(held).__name__
    if not isinstance(rows, type(held)) or values is not None or tokens is None:
        raise TypeError(f"the cache reads {kind}: pass append({kind}(...), tokens=T) after their owner has grown.")
    count = require_count("tokens", tokens)
    grown, array_type = rows.native()
    if array_type != held_type or not grown.fits(held, held.shape[0]):
        raise ValueError(f"rows of another array type, dtype or shape than the cache's were given: pass its {kind}.")
    return grown, count


def reordered(held: Rows, held_type: str, rows: Any, order: Any) -> Rows:
    """The owner's rows of the sequences `order`, checked against those held."""
    kind = type(held).__name__
    if not isinstance(held, OwnedElsewhere) or type(rows) is not type(held):
        raise TypeError(f"rows of type {type(rows).__name__} were given to a cache of {kind}: pass those, or none.")
    given, array_type = rows.native()
    if array_type != held_type or not given.fits(held, len(order)):
        want = (len(order), *held.shape[1:])
        raise ValueError(
            f"rows of {array_type} {given.shape} and {given.dtypes[0]} were given: pass {held_type} rows {want} of "
            f"{held.dtypes[0]}, with values of length {held.value_dim}."
        )
    if int(held.ends[order].max()) > given.shape[2]:
        raise ValueError(f"rows of {given.shape[2]} slots were given: pass all {int(held.ends[order].max())}.")
    bound: Rows = given.bind(held.kv_range[order], held.backend)
    return bound
