"""Caches as npz files: arrays and a JSON header; bfloat16 is stored as its bits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from socket_theory.core.backend import resolve_backend
from socket_theory.core.cache import Cache
from socket_theory.core.checks import bfloat16, require_float
from socket_theory.core.definition import METHODS
from socket_theory.core.files import replacing
from socket_theory.core.index import Index, TokenIndex
from socket_theory.core.inputs import check_capacity, make_kv_range
from socket_theory.core.method import Method
from socket_theory.core.npz import read_npz
from socket_theory.core.rows import DenseRows, NoRows, Rows

_FORMAT = 2


def save_cache(cache: Cache, path: str | Path) -> None:
    """Write a NumPy or torch CPU cache to one npz file, whole or not at all, without pickle; `load_cache` reads it.

    The method's class and settings are in the file, its code is not: for a class of your own pass `load_cache` a
    method, too. Rows that somebody else owns are written as copies.

    Raises
    ------
    ValueError
        For a cache on a GPU, and for settings that are no numbers, strings, booleans or None.
    """
    if cache.backend.name != "numpy":
        raise ValueError(f"the cache is on backend {cache.backend.name!r}: only NumPy and torch CPU caches are saved.")
    parts = {name: np.asarray(part) for name, part in _parts(cache).items()}
    bits = [name for name, part in parts.items() if str(part.dtype) == "bfloat16"]
    method, settings = type(cache.method), asdict(cache.method)
    if not _survives_json(settings):
        raise ValueError(f"{cache.method} cannot be saved: pass settings that are numbers, strings, booleans or None.")
    header = {
        "format": _FORMAT,
        "method": method.__name__,
        "own_class": METHODS.get(method.__name__) is not method,
        "settings": settings,
        "batch_shape": cache.batch_shape,
        "shape": cache.rows.shape,
        "value_dim": cache.rows.value_dim,
        "dtypes": [str(dtype) for dtype in cache.rows.dtypes],
        "capacity": cache.capacity,
        "array_type": cache.array_type,
        "bfloat16": bits,
    }
    stored = {n: p.view(np.uint16) if n in bits else p for n, p in parts.items()}
    with replacing(Path(path)) as file:
        np.savez(file, header=np.array(json.dumps(header)), **stored)  # type: ignore[arg-type]


def load_cache(path: str | Path, *, method: Method | None = None) -> Cache:
    """Read what `save_cache` wrote.

    Parameters
    ----------
    path : str or Path
    method : Method, optional
        The estimator that the cache is for. Required for a class that is not this library's own, whose settings are in
        the file and whose code is not. It may differ from the saved one where `Cache.with_method` allows it.

    Raises
    ------
    TypeError
        If `method` is missing for such a class, or no Method.
    ValueError
        Naming the file, for a damaged one or one of another kind or format, for a method of another class than the
        saved one, or one that reads another index.
    """
    with _naming(path):
        parts = read_npz(path)
        header = json.loads(str(parts.pop("header")))
        if header["format"] != _FORMAT:
            raise ValueError(f"its format is {header['format']!r}")
        name, settings = str(header["method"]), dict(header["settings"])
        own_class = header.get("own_class", name not in METHODS)
        saved = None if own_class else METHODS[name](**settings)
    if saved is None:
        saved = _own_method(path, name, settings, method)
    with _naming(path):
        cache = _cache(saved, header, parts)
    return cache if method is None else cache.with_method(method)


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Whatever a file that holds something else leads to, as a ValueError with its name."""
    try:
        yield
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a cache of format {_FORMAT} ({type(error).__name__}: {error}): "
            "pass a file that save_cache wrote."
        ) from error


def _own_method(path: str | Path, name: str, settings: dict[str, Any], method: Method | None) -> Method:
    if method is None:
        raise TypeError(
            f"{path} holds a cache of {name}, a class of your own: pass load_cache(path, method={name}(...))."
        )
    if type(method).__name__ != name or asdict(method).keys() != settings.keys():
        saved = ", ".join(f"{setting}={value!r}" for setting, value in settings.items())
        raise ValueError(f"{path} holds a cache of {name}({saved}) and method={method!r} was given: pass a {name}.")
    return method if asdict(method) == settings else replace(method, **settings)


def _survives_json(settings: dict[str, Any]) -> bool:
    try:
        return bool(json.loads(json.dumps(settings, allow_nan=False)) == settings)
    except (TypeError, ValueError):
        return False


def _parts(cache: Cache) -> dict[str, Any]:
    """All arrays of a cache by the names they have in a file."""
    parts: dict[str, Any] = {"kv_range": cache.kv_range}
    if cache.method.keeps_rows:
        parts |= {"keys": cache.keys, "values": cache.values}
    parts |= {f"index.{name}": array for name, array in cache.index.arrays.items()}
    parts |= {f"frozen.{name}": array for name, array in cache.index.frozen.items()}
    if cache.sample is not None:
        parts |= {f"sample.{field.name}": getattr(cache.sample, field.name) for field in fields(cache.sample)}
    return parts


def _cache(method: Method, header: dict[str, Any], parts: dict[str, Any]) -> Cache:
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
    one = _index_of_one_token(method, rows, sample)
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
        return NoRows(shape, header["value_dim"], dtypes, kv_range, backend)
    keys, values = parts["keys"], parts["values"]
    if keys.ndim != 4 or 0 in keys.shape or keys.shape != shape or values.shape != (*shape[:3], header["value_dim"]):
        raise ValueError(f"keys {keys.shape} and values {values.shape} do not fit the shape {shape}")
    if len(keys) != prod(batch_shape):
        raise ValueError(f"keys {keys.shape} do not fit the batch shape {batch_shape}")
    for name in ("keys", "values"):
        require_float(name, parts[name].dtype)
    return DenseRows(keys, values, kv_range, backend, capacity)


def _index_of_one_token(method: Method, rows: Rows, sample: Any) -> Index:
    """What the method makes of one token of zeros of the same dtype in each sequence."""
    batch, heads, _, dim = rows.shape
    keys, values = (
        np.zeros((batch, heads, 1, size), dtype) for size, dtype in zip((dim, rows.value_dim), rows.dtypes, strict=True)
    )
    return method.index(DenseRows(keys, values, np.tile([0, 1], (batch, 1)), rows.backend), sample, {})


def _require_alike(stored: dict[str, Any], expected: Mapping[str, Any], slots: int | None) -> None:
    """ValueError unless arrays have the names, dtypes and shapes of those expected, but for the number of slots."""
    if stored.keys() != expected.keys():
        raise ValueError(f"its index is {', '.join(stored) or 'empty'} and not {', '.join(expected) or 'empty'}")
    for name, one in expected.items():
        want = one.shape if slots is None else (*one.shape[:-1], slots)
        if stored[name].dtype != one.dtype or stored[name].shape != want:
            raise ValueError(f"{name} is {stored[name].dtype} of shape {stored[name].shape}")
