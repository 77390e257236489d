"""From a gradient with respect to the features of vectors to those of the vectors, the planes and beta (R8)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.hashing import Planes
from socket_theory.race.features import soft_buckets

Float = NDArray[np.float64]


def through_features(gradient: Float, vectors: Float, planes: Planes, beta: float) -> tuple[Float, Float, Float]:
    """From dPhi [..., L 2^P] to the gradients of vectors [..., D], planes [L, P, D] and beta [].

    d phi_r / d t_p = beta phi_r (c_rp - tanh(beta t_p)) and d phi_r / d beta = phi_r sum_p t_p (c_rp - tanh(beta t_p)).
    """
    t = tanh_projections(vectors, planes)
    weighted = weighted_by_bucket(gradient, vectors, planes, beta)
    moved = weighted @ corners(planes.num_planes) - np.tanh(beta * t) * weighted.sum(axis=-1, keepdims=True)
    projected = beta * moved * (1 - t**2)
    of_vectors = np.einsum("...lp,lpd->...d", projected, planes.weights)
    return of_vectors, over_rows(projected, vectors), np.asarray((moved * t).sum())


def tanh_projections(vectors: Float, planes: Planes) -> Float:
    """t = tanh <w_lp, x>: vectors [..., D] -> [..., L, P]."""
    return np.asarray(np.tanh(np.einsum("...d,lpd->...lp", vectors, planes.weights)))


def weighted_by_bucket(gradient: Float, vectors: Float, planes: Planes, beta: float) -> Float:
    """dPhi_r phi_r: gradient [..., L 2^P], vectors [..., D] -> [..., L, 2^P]."""
    features = soft_buckets(vectors, planes.weights, beta)
    return np.asarray(gradient.reshape(features.shape) * features)


def over_rows(projected: Float, vectors: Float) -> Float:
    """sum over rows of dz x': dz [..., L, P], x [..., D] -> [L, P, D]."""
    axes = list(range(vectors.ndim - 1))
    return np.tensordot(projected, vectors, (axes, axes))


def corners(num_planes: int) -> Float:
    """c_rp = +1 or -1 of bucket r, bit p of r the least significant first -> [2^P, P]."""
    return np.where(np.arange(2**num_planes)[:, None] >> np.arange(num_planes) & 1, 1.0, -1.0)
