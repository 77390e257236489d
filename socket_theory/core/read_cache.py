"""The cache that a file's header and arrays describe, or an error where they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from socket_theory.core.backend import resolve_backend
from socket_theory.core.cache import Cache
from socket_theory.core.checks import bfloat16, require_float
from socket_theory.core.index import Index, TokenIndex
from socket_theory.core.inputs import check_capacity, make_kv_range
from socket_theory.core.method import Method
from socket_theory.core.rows import DenseRows, NoRows, Rows


def read_cache(method: Method, header: dict[str, Any], parts: dict[str, Any]) -> Cache:
    """The cache of a header and its arrays; any error of Python's own or of a check where they do not fit."""
    for name in header["bfloat16"]:
        parts[name] = parts[name].view(bfloat16())
    array_type, batch_shape = header["array_type"], tuple(header["batch_shape"])
    if array_type not in ("numpy", "torch"):
        raise ValueError(f"array_type is {array_type!r}")
    rows = _rows(method, header, parts, batch_shape)
    frozen, stored = _named("frozen.", parts), _named("index.", parts)
    made = _named("sample.", parts)
    sample = method.sample_type(**made) if method.sample_type and made else None
    if (sample is None) != (method.sample_type is None):
        raise ValueError(f"its sample is {', '.join(made) or 'none'}")
    if sample is not None:
        method.check_sample(sample, rows.shape[3])
    known = method.freezes(rows.shape[1], rows.shape[3])
    for name, array in frozen.items():
        if name not in known or array.shape != (rows.shape[0], *known[name]):
            raise ValueError(f"{name} is {array.dtype} of shape {array.shape}")
    one = _index_of_one_token(method, rows, sample, frozen)
    kept = rows if method.keeps_rows else NoRows.of(rows)
    for here, there, per_token in ((stored, one.arrays, isinstance(one, TokenIndex)), (frozen, one.frozen, False)):
        _require_alike(here, there, rows.shape[2] if per_token else None)
    return Cache(method, kept, replace(one, arrays=stored, frozen=frozen), sample, batch_shape, array_type)


def _named(prefix: str, parts: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): array for name, array in parts.items() if name.startswith(prefix)}


def _rows(method: Method, header: dict[str, Any], parts: dict[str, Any], batch_shape: tuple[int, ...]) -> Rows:
    shape, kv_range = tuple(header["shape"]), parts["kv_range"]
    starts, lengths = (kv_range[:, side].reshape(batch_shape) for side in range(2))
    kv_range, backend = make_kv_range(batch_shape, shape[2], starts, lengths), resolve_backend("numpy")
    capacity = check_capacity(header["capacity"], shape[2])
    if not method.keeps_rows:
        dtypes = tuple(bfloat16() if name == "bfloat16" else np.dtype(name) for name in header["dtypes"])
        return NoRows(shape, header["value_dim"], dtypes, kv_range, backend, capacity)
    keys, values = parts["keys"], parts["values"]
    if keys.ndim != 4 or 0 in keys.shape or keys.shape != shape or values.shape != (*shape[:3], header["value_dim"]):
        raise ValueError(f"keys {keys.shape} and values {values.shape} do not fit the shape {shape}")
    if len(keys) != prod(batch_shape):
        raise ValueError(f"keys {keys.shape} do not fit the batch shape {batch_shape}")
    for name in ("keys", "values"):
        require_float(name, parts[name].dtype)
    return DenseRows(keys, values, kv_range, backend, capacity)


def _index_of_one_token(method: Method, rows: Rows, sample: Any, frozen: dict[str, Any]) -> Index:
    """What the method makes of one token of ones of the same dtype in each sequence."""
    batch, heads, _, dim = rows.shape
    keys, values = (
        np.ones((batch, heads, 1, size), dtype) for size, dtype in zip((dim, rows.value_dim), rows.dtypes, strict=True)
    )
    return method.index(DenseRows(keys, values, np.tile([0, 1], (batch, 1)), rows.backend), sample, frozen)


def _require_alike(stored: dict[str, Any], expected: Mapping[str, Any], slots: int | None) -> None:
    """ValueError unless arrays have the names, dtypes and shapes of those expected, but for the number of slots."""
    if stored.keys() != expected.keys():
        raise ValueError(f"its index is {', '.join(stored) or 'empty'} and not {', '.join(expected) or 'empty'}")
    for name, one in expected.items():
        want = one.shape if slots is None else (*one.shape[:-1], slots)
        if stored[name].dtype != one.dtype or stored[name].shape != want:
            raise ValueError(f"{name} is {stored[name].dtype} of shape {stored[name].shape}")
