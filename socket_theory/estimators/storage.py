"""Caches as npz files: arrays, planes and a JSON header; bfloat16 is stored as its bits."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from socket_theory.backend import bfloat16, resolve_backend
from socket_theory.estimators.cache import Cache
from socket_theory.hashing import Planes

_FORMAT = 1


def save_cache(cache: Cache, path: str | Path) -> None:
    """Write a cache. Raises ValueError if it is not on the NumPy backend."""
    if cache.backend.name != "numpy":
        raise ValueError(f"the cache is on backend {cache.backend.name!r}: only NumPy and torch CPU caches are saved.")
    parts: dict[str, Any] = dict(cache.arrays) | {"spans": cache.spans}
    parts |= {"planes": cache.planes.weights} if cache.planes else {}
    parts |= {"center": cache.center} if cache.center is not None else {}
    bits = [name for name, part in parts.items() if str(part.dtype) == "bfloat16"]
    header = {
        "format": _FORMAT,
        "method": type(cache.method).__name__,
        "settings": asdict(cache.method),
        "lead": cache.lead,
        "capacity": cache.capacity,
        "array_type": cache.array_type,
        "bfloat16": bits,
    }
    stored = {n: p.view(np.uint16) if n in bits else p for n, p in parts.items()}
    with open(path, "wb") as file:
        np.savez(file, header=np.array(json.dumps(header)), **stored)


def load_cache(path: str | Path) -> Cache:
    """Read what `Cache.save` wrote. Raises ValueError for a file of another kind or format."""
    from socket_theory.estimators import METHODS

    try:
        with np.load(path, allow_pickle=False) as file:
            parts = dict(file)
        header = json.loads(str(parts.pop("header", "{}")))
    except (ValueError, TypeError, EOFError, BadZipFile):
        header = {}
    if header.get("format") != _FORMAT or header.get("method") not in METHODS:
        raise ValueError(f"{path} is not a cache of format {_FORMAT}: pass a file that Cache.save wrote.")
    for name in header["bfloat16"]:
        parts[name] = parts[name].view(bfloat16())
    planes = Planes(parts.pop("planes")) if "planes" in parts else None
    center, spans = parts.pop("center", None), parts.pop("spans")
    method = METHODS[header["method"]](**header["settings"])
    kind = header["array_type"]
    lead, capacity = tuple(header["lead"]), header["capacity"]
    return Cache(method, parts, spans, lead, planes, center, capacity, kind, resolve_backend("numpy"))
