"""Checks and canonical shapes of what `prepare` and `append` are given."""

from __future__ import annotations

from dataclasses import fields
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from socket_theory.core.array_types import common_array_type, to_native
from socket_theory.core.backend import resolve_backend
from socket_theory.core.checks import read_array, require_count, require_finite, require_float

if TYPE_CHECKING:
    from socket_theory.core.method import Method


def check_key_values(keys: Any, values: Any) -> tuple[Any, Any, str]:
    """Keys and values as native arrays with matching shapes and float dtypes, and their array type."""
    for name, given in (("keys", keys), ("values", values)):
        if given is None:
            raise TypeError(f"{name}=None was given: pass an array [..., num_kv_heads, kv_len, head_dim].")
    kind = common_array_type(keys=keys, values=values)
    require_float("keys", keys.dtype)
    require_float("values", values.dtype)
    if kind.startswith("torch-"):
        resolve_backend(kind)
    keys, values = to_native("keys", keys), to_native("values", values)
    if keys.ndim < 3 or keys.shape[:-1] != values.shape[:-1]:
        raise ValueError(
            f"keys {tuple(keys.shape)} and values {tuple(values.shape)} were given: "
            "pass [..., num_kv_heads, kv_len, head_dim] arrays that differ in the last axis at most."
        )
    if 0 in keys.shape or 0 in values.shape:
        raise ValueError(f"keys {tuple(keys.shape)} and values {tuple(values.shape)} are empty: pass a token at least.")
    return keys, values, kind


def flatten_lead(array: Any, lead: int) -> Any:
    """[..., rest] -> [B, rest] for `lead` leading axes."""
    return array.reshape(prod(array.shape[:lead]), *array.shape[lead:])


def per_sequence(name: str, given: Any, lead: tuple[int, ...]) -> Any:
    """One integer a sequence, int64 [B], from an integer or integers of the leading shape.

    Raises
    ------
    TypeError, ValueError
        For anything but integers, or a shape that does not broadcast to the leading one.
    """
    counts = read_array(name, given)
    if counts.dtype.kind not in "iu":
        raise TypeError(f"{name}={given!r} was given: pass integers, one a sequence.")
    try:
        return np.broadcast_to(counts, lead).reshape(prod(lead)).astype(np.int64)
    except ValueError:
        raise ValueError(f"{name} of shape {counts.shape} was given: pass an integer, or integers of {lead}.") from None


def make_spans(lead: tuple[int, ...], slots: int, kv_start: Any, kv_len: Any) -> Any:
    """int64 [B, 2] of validated (kv_start, kv_len); the defaults are 0 and everything behind the start."""
    start = per_sequence("kv_start", 0 if kv_start is None else kv_start, lead)
    length = slots - start if kv_len is None else per_sequence("kv_len", kv_len, lead)
    if (start < 0).any() or (length < 1).any() or (start + length > slots).any():
        raise ValueError(
            f"kv_start={start.tolist()} and kv_len={length.tolist()} were given for {slots} slots: "
            "pass kv_start >= 0, kv_len >= 1 and kv_start + kv_len at most the slots."
        )
    return np.stack([start, length], axis=1)


def check_capacity(capacity: int | None, slots: int) -> int | None:
    """`capacity` if it is None or at least `slots`."""
    return None if capacity is None else require_count("capacity", capacity, least=slots)


def check_center(center: Any, keys: Any, lead: tuple[int, ...]) -> Any:
    want = (*lead, keys.shape[1], keys.shape[-1])
    require_float("center", center.dtype)
    if tuple(center.shape) != want:
        raise ValueError(f"center of shape {tuple(center.shape)} was given: pass {want}, one offset a KV head.")
    require_finite("center", center)
    with np.errstate(over="ignore"):
        rounded = flatten_lead(center, len(lead)).astype(keys.dtype)
    require_finite(f"center in the keys' {keys.dtype}", rounded)
    return rounded


# Names that a cache and its file have for other arrays.
_RESERVED = ("keys", "values", "spans", "planes", "center", "header", "file", "allow_pickle")


def check_index(method: Method, index: Any, keys: Any, slot_block: int) -> dict[str, Any]:
    """What `method.index` returned for keys [B, Hkv, N, D], if a cache can hold, append to and save it.

    Raises TypeError or ValueError naming the method otherwise.
    """
    name = f"{type(method).__name__}.index"
    cached = {key for key in vars(method) if isinstance(getattr(type(method), key, None), cached_property)}
    unknown = vars(method).keys() - {field.name for field in fields(method)} - cached
    if unknown:
        listed = ", ".join(sorted(unknown))
        raise TypeError(f"{type(method).__name__} keeps {listed}, no field: declare it in a frozen dataclass.")
    if not isinstance(index, dict) or not all(isinstance(key, str) for key in index):
        raise TypeError(f"{name} returned {type(index).__name__}: return a dict of arrays by name, empty for none.")
    for array_name, array in index.items():
        kind = type(array)
        if kind is not type(keys) or (array.dtype.kind not in "biuf" and str(array.dtype) != "bfloat16"):
            given = array.dtype if kind is type(keys) else f"{kind.__module__}.{kind.__name__}"
            raise TypeError(f"{name} returned {array_name} of {given}: return numbers in the type of the keys it gets.")
        if array_name in _RESERVED:
            raise ValueError(f"{name} returned an array named {array_name!r}, which a cache has already: rename it.")
        # A backend that packs slots in blocks has shapes of its own.
        batch, slots = len(keys), keys.shape[-2]
        if array.ndim < 2 or len(array) != batch or (slot_block == 1 and array.shape[-1] != slots):
            raise ValueError(f"{name} returned {array_name} {array.shape}: return [{batch}, ..., {slots}].")
    return index


def require_same_index(prepared: Method, method: Method) -> None:
    """TypeError if `method` is no Method, ValueError if its index is another one than that of `prepared`."""
    from socket_theory.core.method import Method

    if not isinstance(method, Method):
        raise TypeError(f"method is of type {type(method).__name__}: pass an estimator, such as Socket().")
    have, want = dict(prepared.index_recipe), dict(method.index_recipe)
    name = next((name for name in have | want if have.get(name) != want.get(name)), None)
    if name is None:
        return
    why = f"{type(method).__name__} does not read the index of {type(prepared).__name__}"
    if type(method) is type(prepared):
        why = f"{name}={want[name]!r} was given and the index was made with {name}={have[name]!r}"
    raise ValueError(f"{why}: prepare a cache with {method}.")


def refuse(method: Method, **arguments: Any) -> None:
    """TypeError for every argument given that the method does not use."""
    for name, given in arguments.items():
        if given is not None:
            raise TypeError(f"{type(method).__name__} does not use {name}, and {name}={given!r} was given: drop it.")
