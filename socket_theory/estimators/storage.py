"""Caches as npz files: arrays, planes and a JSON header; bfloat16 is stored as its bits."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from socket_theory.backend import bfloat16, resolve_backend
from socket_theory.estimators.cache import Cache
from socket_theory.hashing import Planes

if TYPE_CHECKING:
    from socket_theory.estimators.method import Method

_FORMAT = 1


def save_cache(cache: Cache, path: str | Path) -> None:
    """Write a cache. Raises ValueError if it is not on the NumPy backend, or a setting is no JSON value."""
    from socket_theory.estimators import METHODS

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
    with open(path, "wb") as file:
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
        For a file of another kind or format, a method of another class than the saved one, or one that reads another
        index.
    """
    from socket_theory.estimators import METHODS

    try:
        with np.load(path, allow_pickle=False) as file:
            parts = dict(file)
        header = json.loads(str(parts.pop("header", "{}")))
    except (ValueError, TypeError, EOFError, BadZipFile):
        header = {}
    if header.get("format") != _FORMAT or not isinstance(header.get("method"), str):
        raise ValueError(f"{path} is not a cache of format {_FORMAT}: pass a file that Cache.save wrote.")
    for name in header["bfloat16"]:
        parts[name] = parts[name].view(bfloat16())
    planes = Planes(parts.pop("planes")) if "planes" in parts else None
    center, spans = parts.pop("center", None), parts.pop("spans")
    kind, name = header["array_type"], header["method"]
    lead, capacity = tuple(header["lead"]), header["capacity"]
    if header.get("own_class", name not in METHODS):
        saved = _saved_method(path, name, header["settings"], method)
    else:
        saved = METHODS[name](**header["settings"])
    cache = Cache(saved, parts, spans, lead, planes, center, capacity, kind, resolve_backend("numpy"))
    return cache if method is None else cache.with_method(method)


def _saved_method(path: str | Path, name: str, settings: dict[str, Any], method: Method | None) -> Method:
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
