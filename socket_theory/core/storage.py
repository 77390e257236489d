"""Caches as npz files: arrays, planes and a JSON header; bfloat16 is stored as its bits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from socket_theory.core.backend import Backend, resolve_backend
from socket_theory.core.cache import Cache
from socket_theory.core.checks import bfloat16, require_float
from socket_theory.core.files import replacing
from socket_theory.core.hashing import Planes
from socket_theory.core.inputs import check_capacity, make_spans
from socket_theory.core.method import METHODS, Method
from socket_theory.core.npz import read_npz

_FORMAT = 1


def save_cache(cache: Cache, path: str | Path) -> None:
    """Write a cache, whole or not at all. Raises ValueError if it is not on the NumPy backend, or a setting is no JSON
    value."""
    if cache.backend.name != "numpy":
        raise ValueError(f"the cache is on backend {cache.backend.name!r}: only NumPy and torch CPU caches are saved.")
    parts: dict[str, Any] = dict(cache.arrays) | {"spans": cache.spans}
    parts |= {"planes": cache.planes.weights} if cache.planes else {}
    parts |= {"center": cache.center} if cache.center is not None else {}
    bits = [name for name, part in parts.items() if str(part.dtype) == "bfloat16"]
    method, settings = type(cache.method), asdict(cache.method)
    if not _survives_json(settings):
        raise ValueError(f"{cache.method} cannot be saved: pass settings that are numbers, strings, booleans or None.")
    header = {
        "format": _FORMAT,
        "method": method.__name__,
        "own_class": METHODS.get(method.__name__) is not method,
        "settings": settings,
        "lead": cache.lead,
        "capacity": cache.capacity,
        "array_type": cache.array_type,
        "bfloat16": bits,
    }
    stored = {n: p.view(np.uint16) if n in bits else p for n, p in parts.items()}
    with replacing(Path(path)) as file:
        np.savez(file, header=np.array(json.dumps(header)), **stored)


def load_cache(path: str | Path, *, method: Method | None = None) -> Cache:
    """Read what `Cache.save` wrote.

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
            "pass a file that Cache.save wrote."
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


def _cache(method: Method, header: dict[str, Any], parts: dict[str, Any]) -> Cache:
    """The cache of a header and its arrays; any error of Python's own or of a check where they do not fit."""
    for name in header["bfloat16"]:
        parts[name] = parts[name].view(bfloat16())
    planes = Planes(parts.pop("planes")) if "planes" in parts else None
    center, spans = parts.pop("center", None), parts.pop("spans")
    kind, lead = header["array_type"], tuple(header["lead"])
    if kind not in ("numpy", "torch"):
        raise ValueError(f"array_type is {kind!r}")
    keys, values = parts["keys"], parts["values"]
    if keys.ndim != 4 or 0 in keys.shape or len(keys) != prod(lead) or values.shape[:-1] != keys.shape[:-1]:
        raise ValueError(f"keys {keys.shape} and values {values.shape} do not fit the leading shape {lead}")
    for name in ("keys", "values"):
        require_float(name, parts[name].dtype)
    starts, lengths = (spans[:, side].reshape(lead) for side in range(2))
    spans = make_spans(lead, keys.shape[2], starts, lengths)
    if center is not None and (center.shape != (*keys.shape[:2], keys.shape[3]) or center.dtype != keys.dtype):
        raise ValueError(f"center is {center.dtype} {center.shape}")
    backend = resolve_backend("numpy")
    _require_index_of(method, backend, parts, planes, center)
    return Cache(
        method, parts, spans, lead, planes, center, check_capacity(header["capacity"], keys.shape[2]), kind, backend
    )


def _require_index_of(method: Method, backend: Backend, arrays: dict[str, Any], planes: Any, center: Any) -> None:
    """ValueError unless the arrays are, but for the number of slots, those that the method makes of one token."""
    keys, values = (np.zeros_like(arrays[name][:, :, :1]) for name in ("keys", "values"))
    hashed = method.draw_planes(keys.shape[-1], None, planes)
    whole = np.tile(np.array([0, 1]), (len(keys), 1))
    if (center is None) != (method.choose_center(backend, keys, whole, None) is None):
        raise ValueError(f"center does not belong to {method}")
    index = method.index(backend, keys, values, whole, hashed, center)
    stored = {name: array for name, array in arrays.items() if name not in ("keys", "values")}
    if stored.keys() != index.keys():
        raise ValueError(f"its index is {', '.join(stored) or 'empty'} and not {', '.join(index) or 'empty'}")
    slots = arrays["keys"].shape[2]
    for name, one in index.items():
        if stored[name].dtype != one.dtype or stored[name].shape != (*one.shape[:-1], slots):
            raise ValueError(f"{name} is {stored[name].dtype} of shape {stored[name].shape}")
