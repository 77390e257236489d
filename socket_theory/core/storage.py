"""Caches as npz files: arrays and a JSON header; bfloat16 is stored as its bits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from socket_theory.core.cache import Cache
from socket_theory.core.definition import METHODS
from socket_theory.core.files import replacing
from socket_theory.core.index import SumIndex, TokenIndex
from socket_theory.core.method import Method
from socket_theory.core.npz import read_npz
from socket_theory.core.owned_elsewhere import OwnedElsewhere
from socket_theory.core.read_cache import read_cache

_FORMAT = 2


def save_cache(cache: Cache, path: str | Path) -> None:
    """Write a NumPy or torch CPU cache to one npz file, whole or not at all, without pickle; `load_cache` reads it.

    The method's class and settings are in the file, its code is not: for a class of your own pass `load_cache` a
    method, too. Rows that somebody else owns are written as copies.

    Raises
    ------
    ValueError
        For a cache on a GPU, settings that are no numbers, strings, booleans or None, an index that is neither a
        TokenIndex nor a SumIndex, and a sample that is no dataclass of arrays.
    """
    if cache.backend.name != "numpy":
        raise ValueError(f"the cache is on backend {cache.backend.name!r}: only NumPy and torch CPU caches are saved.")
    if type(cache.index) not in (TokenIndex, SumIndex):
        raise ValueError(
            f"the cache has an index of {type(cache.index).__name__}: only a TokenIndex or a SumIndex is saved."
        )
    parts = {name: np.asarray(part) for name, part in _parts(cache).items()}
    for name, part in parts.items():
        if part.dtype.kind == "O":
            raise ValueError(f"{name} is no array of numbers, and files hold nothing else: it cannot be saved.")
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
        "shape": parts["keys"].shape if "keys" in parts else cache.rows.shape,
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
        cache = read_cache(saved, header, parts)
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
    if isinstance(cache.rows, OwnedElsewhere):
        # Their slots and those of the index may differ behind the last valid token.
        last = int(cache.rows.ends.max())
        parts |= {name: parts[name][:, :, :last] for name in ("keys", "values") if name in parts}
        if isinstance(cache.index, TokenIndex):
            parts |= {f"index.{name}": array[..., :last] for name, array in cache.index.arrays.items()}
    parts |= {f"frozen.{name}": array for name, array in cache.index.frozen.items()}
    if cache.sample is not None:
        if not is_dataclass(cache.sample):
            raise ValueError(
                f"the sample is of type {type(cache.sample).__name__}: only dataclasses of arrays are saved."
            )
        parts |= {f"sample.{field.name}": getattr(cache.sample, field.name) for field in fields(cache.sample)}
    return parts
