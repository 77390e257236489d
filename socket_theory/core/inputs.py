"""Checks and canonical shapes of what `prepare` and `append` are given."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from socket_theory.core.array_types import array_type as type_of
from socket_theory.core.array_types import common_array_type, to_native
from socket_theory.core.backend import resolve_backend
from socket_theory.core.checks import read_array, require_count, require_finite, require_float


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


def flatten_batch(array: Any, axes: int) -> Any:
    """[..., rest] -> [B, rest] for so many batch axes."""
    return array.reshape(prod(array.shape[:axes]), *array.shape[axes:])


def per_sequence(name: str, given: Any, batch_shape: tuple[int, ...]) -> Any:
    """One integer per sequence, int64 [B], from an integer or integers of the batch shape.

    Raises
    ------
    TypeError, ValueError
        For anything but integers, or a shape that does not broadcast to the batch shape.
    """
    counts = read_array(name, given)
    if counts.dtype.kind not in "iu":
        raise TypeError(f"{name}={given!r} was given: pass integers, one a sequence.")
    try:
        return np.broadcast_to(counts, batch_shape).reshape(prod(batch_shape)).astype(np.int64)
    except ValueError:
        raise ValueError(
            f"{name} of shape {counts.shape} was given: pass an integer, or integers of {batch_shape}."
        ) from None


def make_kv_range(batch_shape: tuple[int, ...], slots: int, kv_start: Any, kv_len: Any) -> Any:
    """int64 [B, 2] of validated (kv_start, kv_len); the defaults are 0 and everything behind the start."""
    start = per_sequence("kv_start", 0 if kv_start is None else kv_start, batch_shape)
    length = slots - start if kv_len is None else per_sequence("kv_len", kv_len, batch_shape)
    if (start < 0).any() or (length < 1).any() or (start + length > slots).any():
        raise ValueError(
            f"kv_start={start.tolist()} and kv_len={length.tolist()} were given for {slots} slots: "
            "pass kv_start >= 0, kv_len >= 1 and kv_start + kv_len at most the slots."
        )
    return np.stack([start, length], axis=1)


def check_capacity(capacity: int | None, slots: int) -> int | None:
    """`capacity` if it is None or at least `slots`."""
    return None if capacity is None else require_count("capacity", capacity, least=slots)


def check_frozen(
    name: str, array: Any, array_type: str, batch_shape: tuple[int, ...], tail: tuple[int, ...], dtype: Any
) -> Any:
    """An array [*batch_shape, *tail] that a method freezes, as [B, *tail] in `dtype` on the backend.

    Raises
    ------
    TypeError, ValueError
        For another array type than that of the keys, another shape, no floats, or what `dtype` cannot hold.
    """
    if (other := type_of(array, name)) != array_type:
        raise TypeError(f"{name} is a {other} array and keys a {array_type} array: pass one kind.")
    given = to_native(name, array)
    require_float(name, given.dtype)
    want = (*batch_shape, *tail)
    if tuple(given.shape) != want:
        raise ValueError(f"{name} of shape {tuple(given.shape)} was given: pass {want}.")
    require_finite(name, given)
    with np.errstate(over="ignore"):
        rounded = flatten_batch(given, len(batch_shape)).astype(dtype)
    require_finite(f"{name} in the keys' {dtype}", rounded)
    return rounded
