"""The algebra of attention states.

A state is a weighted mean together with the log of its total weight, so states over disjoint token sets
merge exactly (C1): that is split-KV decoding, shared prefixes and sequence parallelism.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, get_args

import numpy as np

from socket_theory.core.array_types import array_type, callers_stream, common_array_type, from_native, to_native
from socket_theory.core.attention import AttentionState, Kind
from socket_theory.core.backend import resolve_backend
from socket_theory.core.checks import bfloat16, require_float


def empty_state(shape: tuple[int, ...], kind: Kind = "softmax", like: Any | None = None) -> AttentionState:
    """The identity of `merge_states` for values of `shape` [..., D].

    Parameters
    ----------
    like : array, optional
        A value of the states it is merged with: of this array's library, dtype and device, with an lse in float64 for
        float64 values and else in float32. By default a NumPy array in float64.
    """
    counts = isinstance(shape, tuple) and all(isinstance(n, int | np.integer) and n >= 0 for n in shape)
    if not counts or not shape or kind not in get_args(Kind):
        raise ValueError(
            f"shape={shape!r} and kind={kind!r} were given: pass a tuple [..., D], 'softmax' or 'angular'."
        )
    if like is None:
        return AttentionState(np.zeros(shape), np.full(shape[:-1], -np.inf), kind)
    array_kind = array_type(like, "like")
    wide = "float64" if require_float("like", like.dtype) == "float64" else "float32"
    if array_kind.startswith("torch"):
        torch = import_module("torch")
        value = torch.zeros(shape, dtype=like.dtype, device=like.device)
        return AttentionState(
            value, torch.full(shape[:-1], -np.inf, dtype=getattr(torch, wide), device=like.device), kind
        )
    library = np if array_kind == "numpy" else import_module(array_kind)
    return AttentionState(library.zeros(shape, like.dtype), library.full(shape[:-1], -np.inf, wide), kind)


def merge_states(a: AttentionState, b: AttentionState) -> AttentionState:
    """The state of the union of two disjoint token sets, computed in float64. Source: C1.

    Values and lse of both states are arrays of one library, NumPy, CuPy or torch, and so is the result, in the wider of
    the two values' and of the two lse's dtypes. Where an lse is -inf a state holds nothing, whatever its value is; a
    NumPy state that holds nothing at all, as `empty_state(shape)` gives it, merges with states of any library.

    Raises
    ------
    TypeError
        If an array is of another library than the first one, or not a float one.
    ValueError
        If the kinds differ: a softmax weight and a collision probability have no common unit. If shapes differ, which
        are not broadcast, an lse is +inf or NaN, or a value that counts is not finite.
    """
    if a.kind != b.kind:
        raise ValueError(f"a state of kind {a.kind!r} was given with one of kind {b.kind!r}: merge states of one kind.")
    a, b = _in_the_others_library(a, b), _in_the_others_library(b, a)
    given = {"a.value": a.value, "a.lse": a.lse, "b.value": b.value, "b.lse": b.lse}
    array_kind = common_array_type(**given)
    dtypes = [require_float(name, array.dtype) for name, array in given.items()]
    shape = tuple(a.value.shape)
    for name, array in given.items():
        want = shape[:-1] if name.endswith("lse") else shape
        if not shape or tuple(array.shape) != want:
            raise ValueError(
                f"{name} has shape {tuple(array.shape)} and a.value {shape}: "
                "pass values [..., D] of one shape, and an lse [...] for each."
            )
    if array_kind not in ("numpy", "torch"):
        resolve_backend(array_kind)
    with callers_stream(array_kind):
        library = np if array_kind in ("numpy", "torch") else import_module("cupy")
        wide = [library.asarray(to_native(name, array)).astype(np.float64) for name, array in given.items()]
        value, lse = _merge(library, *wide)
        value, lse = value.astype(_wider(dtypes[0], dtypes[2])), lse.astype(_wider(dtypes[1], dtypes[3]))
        return AttentionState(from_native(value, array_kind), from_native(lse, array_kind), a.kind)


def _in_the_others_library(state: AttentionState, other: AttentionState) -> AttentionState:
    """`state`, or nothing in the library of `other` where it is a NumPy state that holds nothing."""
    numpy_state = isinstance(state.lse, np.ndarray | np.generic)
    fits = numpy_state and np.shape(state.lse) == np.shape(state.value)[:-1]
    if not fits or array_type(other.value, "value") == "numpy" or (state.lse != -np.inf).any():
        return state
    return empty_state(tuple(state.value.shape), state.kind, like=other.value)


def _merge(library: Any, value_a: Any, lse_a: Any, value_b: Any, lse_b: Any) -> tuple[Any, Any]:
    """`merge_states` of float64 arrays of a library."""
    top = library.maximum(lse_a, lse_b)  # NaN where either is
    if bool((library.isnan(top) | (top == np.inf)).any()):
        raise ValueError("an lse is NaN or +inf: pass the natural log of a finite total weight, -inf for nothing.")
    counts_a, counts_b = ((lse > -np.inf)[..., None] for lse in (lse_a, lse_b))
    value_a, value_b = library.where(counts_a, value_a, 0.0), library.where(counts_b, value_b, 0.0)
    if not bool((library.isfinite(value_a) & library.isfinite(value_b)).all()):
        raise ValueError("a value is not finite where its lse is above -inf: check the keys and values it came from.")
    reference = library.where(top > -np.inf, top, 0.0)
    with np.errstate(over="ignore", divide="ignore"):
        weight_a, weight_b = library.exp(lse_a - reference), library.exp(lse_b - reference)
        total = weight_a + weight_b
        lse = library.log(total) + reference
    share_a, share_b = (w / library.where(total > 0, total, 1.0) for w in (weight_a, weight_b))
    return library.asarray(share_a[..., None] * value_a + share_b[..., None] * value_b), library.asarray(lse)


def _wider(left: str, right: str) -> Any:
    """The wider of two float dtypes by name; float32 for the two of 16 bits."""
    name = left if left == right else max(left, right, "float32", key=lambda name: name[-2:])
    return bfloat16() if name == "bfloat16" else np.dtype(name)
