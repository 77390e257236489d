"""The targets: exact softmax attention and angular attention, of one query or many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.checks import require_finite, require_float, require_plain

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


def weighted_state(log_weights: Float, values: NDArray[Any], kind: Kind) -> AttentionState:
    """sum_i e^{l_i} v_i / sum_i e^{l_i} and ln sum_i e^{l_i}, normalised in the log domain.

    Shapes: log_weights [..., N], values [N, D] -> value [..., D], lse [...].

    Raises
    ------
    ValueError
        If N = 0 or every weight of a row is zero (the ratio is 0/0, as for hard LSH without a collision), or one is NaN
        or infinite.
    """
    top = np.max(log_weights, axis=-1, keepdims=True, initial=-np.inf)
    if np.isnan(top).any() or (top == np.inf).any():
        raise ValueError("a weight is NaN or infinite: check query and keys, also those that another owner writes.")
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
    require_arrays(query=query, keys=keys)
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
    check_arrays(query=query, keys=keys, values=values)
    return weighted_state(attention_logits(query, keys, sm_scale), values, "softmax")


def require_arrays(**arrays: NDArray[Any]) -> None:
    """Raises TypeError for anything but floating NumPy arrays."""
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name} is of type {type(array).__name__}: pass a NumPy array.")
        require_plain(name, array)
        require_float(name, array.dtype)


def check_arrays(**arrays: NDArray[Any]) -> None:
    require_arrays(**arrays)
    for name, array in arrays.items():
        require_finite(name, array)
    query, keys = arrays["query"], arrays["keys"]
    values = arrays.get("values", keys)
    if keys.ndim != 2 or query.ndim < 1 or query.shape[-1] != keys.shape[1]:
        raise ValueError(f"query {query.shape} and keys {keys.shape} were given: pass [..., D] and [N, D].")
    if values.ndim != 2 or len(values) != len(keys):
        raise ValueError(f"keys {keys.shape} and values {values.shape} were given: pass [N, D] and [N, E].")


def check_one_query(query: NDArray[Any], keys: NDArray[Any], values: NDArray[Any]) -> None:
    check_arrays(query=query, keys=keys, values=values)
    if query.ndim != 1:
        raise ValueError(f"query of shape {query.shape} was given: pass one query [head_dim].")
