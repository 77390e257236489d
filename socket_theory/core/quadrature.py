"""Expectations over |g|, g standard normal, of functions that turn at widely different scales.

In u = ln|g| the functions here (logistic curves and normal distribution functions of multiples of |g|) are analytic in
a strip of fixed width whatever their scale, so the trapezoid rule converges at the same exponential rate for a query
norm of 1e-3 and of 1e30. Only the left end depends on the scales: below the smallest one the nodes run to 0 doubly
exponentially. One set of nodes then serves every key of a call.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
_STEP = 1 / 8
_LEFT, _RIGHT = -3.75, 12.5  # nodes from scale * exp(-46) to 12.5 standard deviations
_CHUNK_ELEMENTS = 2**19


def half_normal_rule(scale: float) -> tuple[Float, Float]:
    """Nodes and weights of E f(|g|) for f that turns nowhere below `scale` (in (0, 1]). -> [J], [J].

    Source: the substitution |g| = s exp(t - exp(-t)) of Takahasi and Mori 1974, s a quarter of `scale`.
    """
    start = math.log(scale / 4)
    t = np.arange(_LEFT, math.log(_RIGHT) - start, _STEP)
    nodes = np.exp(start + t - np.exp(-t))
    weights = nodes * (1 + np.exp(-t)) * np.exp(-(nodes**2) / 2)
    return nodes, np.asarray(weights / weights.sum())


def half_normal_mean(integrand: Callable[..., Float], scale: float, *arguments: Float) -> Float:
    """E integrand(|g|, *arguments), broadcast over the arguments; `integrand` sees [J] against [rows, 1].

    Shapes: arguments [...] that broadcast -> [...]. Memory is bounded, whatever the shape.
    """
    nodes, weights = half_normal_rule(scale)
    shape = np.broadcast_shapes(*(a.shape for a in arguments))
    columns = [a.reshape(1, 1) if a.size == 1 else np.broadcast_to(a, shape).reshape(-1, 1) for a in arguments]
    result = np.empty(math.prod(shape))
    rows = max(1, _CHUNK_ELEMENTS // len(nodes))
    for first in range(0, len(result), rows):
        chunk = [c if len(c) == 1 else c[first : first + rows] for c in columns]
        result[first : first + rows] = integrand(nodes, *chunk) @ weights
    return result.reshape(shape)
