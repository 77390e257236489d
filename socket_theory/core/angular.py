"""Angular attention: the target of hashing estimators, weights (1 - theta/pi)^P (S3, S11)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from socket_theory.core.attention import AttentionState, check_arrays, check_one_query, weighted_state
from socket_theory.core.checks import require_angle, require_count

Float = NDArray[np.float64]


def angles(query: NDArray[Any], keys: NDArray[Any]) -> Float:
    """theta_i between query [..., D] and keys [N, D], in [0, pi]; pi/2 where either is the zero vector. -> [..., N].

    By the chord lengths |u-v| and |u+v|, accurate at both ends where arccos is not. Raises as `softmax_attention`.
    """
    check_arrays(query=query, keys=keys)
    left, right = _directions(query)[..., None, :], _directions(keys)
    return np.asarray(2 * np.arctan2(np.linalg.norm(right - left, axis=-1), np.linalg.norm(right + left, axis=-1)))


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
    check_one_query(query, keys, values)
    with np.errstate(divide="ignore"):
        log_kernel = np.log(hard_kernel(angles(query, keys), num_planes))
    return weighted_state(log_kernel, values, "angular")


def hard_kernel(theta: ArrayLike, num_planes: int) -> Float:
    """kappa_0 = (1 - theta/pi)^P, the probability that P random planes do not separate two vectors (S3).

    Shapes: theta [...] in [0, pi] -> [...].
    """
    return np.asarray((1 - require_angle("theta", theta) / np.pi) ** require_count("num_planes", num_planes))
