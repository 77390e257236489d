"""The body of `Method.prepare`: what is given is checked and stored, and the index is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from socket_theory.core.array_types import callers_stream
from socket_theory.core.backend import resolve_backend
from socket_theory.core.cache import Cache
from socket_theory.core.checks import require_finite
from socket_theory.core.definition import Definition, check_index, refuse
from socket_theory.core.index import Index
from socket_theory.core.inputs import check_capacity, check_frozen, check_key_values, flatten_batch, make_kv_range
from socket_theory.core.owned_elsewhere import OwnedElsewhere
from socket_theory.core.rng import Key, require_rng_key
from socket_theory.core.rows import ArrayRows, DenseRows, NoRows, Rows


def prepared(
    method: Definition,
    keys: Any,
    values: Any,
    key: Key | None,
    sample: Any,
    ranges: tuple[Any, Any],
    capacity: int | None,
    backend: Any,
    frozen: dict[str, Any],
) -> Cache:
    """The cache of `Method.prepare`, whose arguments these are; `ranges` are kv_start and kv_len."""
    if isinstance(keys, OwnedElsewhere):
        if values is not None or capacity is not None:
            raise TypeError(f"values or capacity was given with {type(keys).__name__}, whose owner has both: drop it.")
        rows, array_type = keys.native()
        batch_shape: tuple[int, ...] = rows.shape[:1]
    else:
        keys, values, array_type = check_key_values(keys, values)
        batch_shape = tuple(keys.shape[:-3])
        rows = DenseRows(*(flatten_batch(array, len(batch_shape)) for array in (keys, values)))
    kv_range = make_kv_range(batch_shape, rows.shape[2], *ranges)
    rows = rows.bind(kv_range, resolve_backend(array_type, backend))
    for name, array in (("keys", rows.keys), ("values", rows.values)):
        for row, (start, length) in enumerate(kv_range):
            require_finite(name, array[row, :, start : start + length])
    given = _given(method, frozen, rows, array_type, batch_shape)
    drawn = _drawn(method, key, sample, rows.shape[3])
    room = check_capacity(capacity, rows.shape[2])
    with callers_stream(array_type):
        # The index is made from row-major copies, so the caller's memory order cannot change a rounding.
        rows = rows.stored(room if method.keeps_rows else None)
        index = _apart(check_index(method, method.index(rows, drawn, given), rows), rows)
    kept = rows if method.keeps_rows else NoRows.of(rows).with_capacity(room)
    return Cache(method, kept, index, drawn, batch_shape, array_type)


def _apart(index: Index, rows: Rows) -> Index:
    """The index with copies of what is a view of the rows: an append writes into both."""
    library: Any = import_module(type(rows.keys).__module__.split(".")[0]) if isinstance(rows, ArrayRows) else None
    if not hasattr(library, "may_share_memory"):
        return index

    def apart(held: Mapping[str, Any]) -> dict[str, Any]:
        shared = library.may_share_memory
        return {n: a.copy() for n, a in held.items() if shared(a, rows.keys) or shared(a, rows.values)}

    arrays, frozen = apart(index.arrays), apart(index.frozen)
    if not arrays and not frozen:
        return index
    return replace(index, arrays={**index.arrays, **arrays}, frozen={**index.frozen, **frozen})


def _drawn(method: Definition, key: Key | None, sample: Any, head_dim: int) -> Any:
    """The sample drawn from `key`, or the one given."""
    name = type(method).__name__
    if method.sample_type is None:
        if type(method).draw is not Definition.draw:
            raise TypeError(f"{name} defines draw and no sample_type: declare the type of what draw returns.")
        refuse(method, key=key, sample=sample)
        return None
    if (key is None) == (sample is None):
        given = "neither" if key is None else "both"
        raise ValueError(f"{given} of key and sample were given to {name}: pass exactly one.")
    if sample is None:
        drawn = method.draw(head_dim, require_rng_key(key))
        if not isinstance(drawn, method.sample_type):
            raise TypeError(f"{name}.draw returned {type(drawn).__name__}: return {method.sample_type.__name__}.")
        return drawn
    if not isinstance(sample, method.sample_type):
        raise TypeError(
            f"sample is of type {type(sample).__name__}: pass {method.sample_type.__name__}, as {name}.draw returns."
        )
    method.check_sample(sample, head_dim)
    return sample


def _given(
    method: Definition, frozen: dict[str, Any], rows: Rows, array_type: str, batch_shape: tuple[int, ...]
) -> dict[str, Any]:
    """What was passed instead of being measured, by name, as arrays [B, ...] of the backend."""
    known = method.freezes(rows.shape[1], rows.shape[3])
    refuse(method, **{name: array for name, array in frozen.items() if name not in known})
    return {
        name: check_frozen(name, array, array_type, batch_shape, known[name], rows.dtypes[0])
        for name, array in frozen.items()
        if array is not None
    }
