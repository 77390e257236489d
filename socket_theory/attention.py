"""The targets: exact softmax attention, angular attention, and the algebra of attention states.

A state is a weighted mean together with the log of its total weight, so states over disjoint token sets
merge exactly (C1): that is split-KV decoding, shared prefixes and sequence parallelism.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from socket_theory.backend import (
    array_type,
    bfloat16,
    callers_stream,
    common_array_type,
    from_native,
    resolve_backend,
    to_native,
)
from socket_theory.checks import require_finite, require_float
from socket_theory.moments import SoftKernel, hard_kernel

Float = NDArray[np.float64]
Kind = Literal["softmax", "angular"]
_CHUNK_ROWS = 8192


@dataclass(frozen=True, eq=False)
class AttentionState:
    """A partial attention result.

    Parameters
    ----------
    value : array [..., D]
        The weighted mean of the values seen.
    lse : array [...]
        Natural log of the total weight seen; -inf for nothing.
    kind : {"softmax", "angular"}
        What the weights are: exp(logit), or a collision probability.
    """

    value: Any
    lse: Any
    kind: Kind = "softmax"


def empty_state(shape: tuple[int, ...], kind: Kind = "softmax", like: Any | None = None) -> AttentionState:
    """The identity of `merge_states` for values of `shape` [..., D].

    Parameters
    ----------
    like : array, optional
        A value of the states it is merged with: of this array's library, dtype and device, with an lse in float64 for
        float64 values and else in float32. By default a NumPy array in float64.
    """
    if like is None:
        return AttentionState(np.zeros(shape), np.full(shape[:-1], -np.inf), kind)
    array_kind = array_type(like)
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
    the two values' and of the two lse's dtypes. Where an lse is -inf a state holds nothing, whatever its value is.

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


def weighted_state(log_weights: Float, values: NDArray[Any], kind: Kind) -> AttentionState:
    """sum_i e^{l_i} v_i / sum_i e^{l_i} and ln sum_i e^{l_i}, normalised in the log domain.

    Shapes: log_weights [..., N], values [N, D] -> value [..., D], lse [...].

    Raises
    ------
    ValueError
        If N = 0 or every weight of a row is zero (the ratio is 0/0, as for hard LSH without a collision).
    """
    top = np.max(log_weights, axis=-1, keepdims=True, initial=-np.inf)
    if not np.isfinite(top).all():
        raise ValueError(
            "no token has a positive weight, so the weighted mean is 0/0: "
            "use a soft kernel (temperature > 0), fewer planes a table or more tables."
        )
    weights = np.exp(log_weights - top)
    total = weights.sum(axis=-1)
    numerator = np.zeros((*log_weights.shape[:-1], values.shape[-1]))
    for start in range(0, len(values), _CHUNK_ROWS):
        chunk = slice(start, start + _CHUNK_ROWS)
        numerator += weights[..., chunk] @ values[chunk].astype(np.float64)
    return AttentionState(numerator / total[..., None], top[..., 0] + np.log(total), kind)


def attention_logits(query: NDArray[Any], keys: NDArray[Any], sm_scale: float | None = None) -> Float:
    """sm_scale <q, k_i>; sm_scale defaults to 1/sqrt(D). Shapes: query [..., D], keys [N, D] -> [..., N]."""
    scale = 1 / np.sqrt(query.shape[-1]) if sm_scale is None else sm_scale
    scaled = query.astype(np.float64) * scale
    logits = np.empty((*query.shape[:-1], len(keys)))
    for start in range(0, len(keys), _CHUNK_ROWS):
        chunk = slice(start, start + _CHUNK_ROWS)
        logits[..., chunk] = scaled @ keys[chunk].astype(np.float64).T
    return logits


def softmax_attention(
    query: NDArray[Any], keys: NDArray[Any], values: NDArray[Any], sm_scale: float | None = None
) -> AttentionState:
    """Exact attention of queries [..., D] over keys [N, D], values [N, E]: the truth of every top-k method.

    Raises TypeError for arrays that are not floating NumPy ones, ValueError for shapes, NaN or no key.
    """
    _check_arrays(query=query, keys=keys, values=values)
    return weighted_state(attention_logits(query, keys, sm_scale), values, "softmax")


def angles(query: NDArray[Any], keys: NDArray[Any]) -> Float:
    """theta_i between query [..., D] and keys [N, D], in [0, pi]; pi/2 where either is the zero vector. -> [..., N].

    By the chord lengths |u-v| and |u+v|, accurate at both ends where arccos is not. Raises as `softmax_attention`.
    """
    _check_arrays(query=query, keys=keys)
    left, right = _directions(query)[..., None, :], _directions(keys)
    return np.asarray(2 * np.arctan2(np.linalg.norm(right - left, axis=-1), np.linalg.norm(right + left, axis=-1)))


def _check_arrays(**arrays: NDArray[Any]) -> None:
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name} is of type {type(array).__name__}: pass a NumPy array.")
        require_float(name, array.dtype)
        require_finite(name, array)
    query, keys = arrays["query"], arrays["keys"]
    values = arrays.get("values", keys)
    if keys.ndim != 2 or query.ndim < 1 or query.shape[-1] != keys.shape[1]:
        raise ValueError(f"query {query.shape} and keys {keys.shape} were given: pass [..., D] and [N, D].")
    if values.ndim != 2 or len(values) != len(keys):
        raise ValueError(f"keys {keys.shape} and values {values.shape} were given: pass [N, D] and [N, E].")


def _check_one_query(query: NDArray[Any], keys: NDArray[Any], values: NDArray[Any]) -> None:
    _check_arrays(query=query, keys=keys, values=values)
    if query.ndim != 1:
        raise ValueError(f"query of shape {query.shape} was given: pass one query [head_dim].")


def _directions(vectors: NDArray[Any]) -> Float:
    wide = vectors.astype(np.float64)
    largest = np.max(np.abs(wide), axis=-1, keepdims=True)
    wide = wide / np.where(largest > 0, largest, 1)
    norm = np.sqrt((wide * wide).sum(-1, keepdims=True))
    return np.asarray(wide / np.where(norm > 0, norm, 1))


def angular_attention(query: NDArray[Any], keys: NDArray[Any], values: NDArray[Any], num_planes: int) -> AttentionState:
    """y* = sum kappa_0(theta_i) v_i / sum kappa_0, kappa_0 = (1-theta/pi)^P: the target of SOCKET's theory (S3, S11).

    Shapes: query [D], keys [N, D], values [N, E] -> value [E], lse [].
    """
    _check_one_query(query, keys, values)
    with np.errstate(divide="ignore"):
        log_kernel = np.log(hard_kernel(angles(query, keys), num_planes))
    return weighted_state(log_kernel, values, "angular")


def soft_angular_attention(
    query: NDArray[Any], keys: NDArray[Any], values: NDArray[Any], kernel: SoftKernel
) -> AttentionState:
    """y_tau = sum kappa_tau(theta_i, |q|) v_i / Z_tau: infinitely many tables at a finite temperature (S4).

    Shapes: query [D], keys [N, D], values [N, E] -> value [E], lse [].
    """
    _check_one_query(query, keys, values)
    if kernel.head_dim != query.shape[-1]:
        raise ValueError(f"the kernel has head_dim={kernel.head_dim} and the query {query.shape[-1]}: make them equal.")
    wide = query.astype(np.float64)
    bit_mean = kernel.bit_mean(angles(query, keys), float(np.sqrt((wide * wide).sum())))
    with np.errstate(divide="ignore"):
        log_kernel = kernel.num_planes * np.log(bit_mean)
    return weighted_state(log_kernel, values, "angular")
