"""Soft buckets in float64 where the inputs lie, and the way back from their gradient, of arrays of NumPy or CuPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from socket_theory.race.feature_gradient import corners
from socket_theory.race.features import soft_buckets
from socket_theory.race.gradient_scale import DIFFERENCE


@dataclass(frozen=True, eq=False)
class Law:
    """weights [L, P, D] of the planes and the corners [2^P, P], in float64 where the inputs lie; beta."""

    weights: Any
    corners: Any
    beta: float

    @classmethod
    def of(cls, weights: Any, beta: float) -> Law:
        """Of the weights [L, P, D] of planes, an array where the inputs lie."""
        wide = weights.astype(np.float64)
        signs = np.empty_like(wide, shape=(2 ** wide.shape[1], wide.shape[1]))
        for place, sign in np.ndenumerate(corners(wide.shape[1])):
            signs[place] = sign
        return cls(wide, signs, beta)

    def features(self, vectors: Any) -> Any:
        """phi [..., n, L 2^P] of vectors [..., n, D]."""
        features = soft_buckets(vectors, self.weights, self.beta)
        return features.reshape(*features.shape[:-2], -1)

    def through(self, gradient: Any, features: Any, vectors: Any, absolute: bool) -> tuple[Any, Any, Any]:
        """From dPhi [..., n, F] to the gradients of vectors [..., n, D], planes [L, P, D] and beta []."""
        tables, num_planes, _ = self.weights.shape
        t = np.tanh(np.einsum("...d,lpd->...lp", vectors, self.weights))
        weighted = (gradient * features).reshape(*t.shape[:-1], -1)
        towards, total = weighted @ self.corners, weighted.sum(axis=-1, keepdims=True)
        slope, steep, planes = 1 - t**2, np.tanh(self.beta * t), self.weights
        if absolute:
            moved = (1 + DIFFERENCE) * total - steep * towards
            slope, t, planes, vectors = slope + DIFFERENCE, abs(t), abs(planes), abs(vectors)
        else:
            moved = towards - steep * total
        projected = (self.beta * moved * slope).reshape(*t.shape[:-2], tables * num_planes)
        of_vectors = projected @ planes.reshape(tables * num_planes, -1)
        flat = projected.reshape(-1, tables * num_planes)
        of_planes = flat.T @ vectors.reshape(-1, vectors.shape[-1])
        return of_vectors, of_planes.reshape(planes.shape), (moved * t).sum()
