"""How large the errors of a gradient in float32 may be: sums of absolute values, in which nothing cancels (R8).

A gradient is a sum of products, and rounding errors are in proportion to the products, not to what is left after they
have cancelled. The scale S_G of a gradient G is the same sum with every factor replaced by its absolute value and every
difference by a sum, on the same features:

- Num and O from |v|, g from |g|, and u_i = (|g_i|, +<|g_i|, O_i>) / Den_i, so that dDen is counted beside dNum;
- the sums over prefixes and suffixes, the planes' |w_lp| and the tokens' |x| likewise;
- |c_rp - tanh(beta t_p)| and 1 - t_p^2, which lie between 0 and 2, plus 2^-8: they may be computed as differences of
  numbers near 1, whose rounding, 2^-24, is below 2^-8 times the 5e-5 of `gradient_tolerance`.

S_G >= |G|. It grows with a constant that is added to all values, under which the gradients of queries, keys, planes and
beta do not change: with it grow the terms that have to cancel.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.hashing import Planes
from socket_theory.race.feature_gradient import corners, over_rows, tanh_projections, weighted_by_bucket
from socket_theory.race.gradient import RaceGradients, Tokens
from socket_theory.race.passes import CHUNK

Float = NDArray[np.float64]
DIFFERENCE = 2.0**-8
OUTPUT_ROUNDING, SUM_ROUNDING = 2.0**-8, 5e-5


def gradient_scale(
    query: NDArray[Any],
    keys: NDArray[Any],
    values: NDArray[Any],
    planes: Planes,
    beta: float,
    output_gradient: NDArray[Any],
    causal: bool = False,
    *,
    chunk: int = CHUNK,
) -> RaceGradients:
    """S_G of each gradient of `race_gradients`, which takes the same arguments, entry by entry."""
    tokens = Tokens.of(query, keys, values, planes, beta, output_gradient, causal, chunk)
    size = np.abs(tokens.values)
    weighted, total = tokens.attend(size)
    of_weighted = np.abs(tokens.gradient) / total
    of_total = (of_weighted * weighted / total).sum(axis=-1, keepdims=True)
    return tokens.back(np.concatenate([of_weighted, of_total], axis=-1), size, _through_features)


def gradient_tolerance(gradients: RaceGradients, scale: RaceGradients, beta: float) -> RaceGradients:
    """2^-8 |G| + 5e-5 max(1, beta) S_G: what a float32 computation with results in bfloat16 may be off, entry by entry.

    It is meant to see one token that is dropped, a prefix in place of a suffix, and a forgotten dDen.
    """
    pairs = ((getattr(gradients, field.name), getattr(scale, field.name)) for field in fields(RaceGradients))
    return RaceGradients(*(OUTPUT_ROUNDING * np.abs(g) + SUM_ROUNDING * max(1.0, beta) * s for g, s in pairs))


def _through_features(scale: Float, vectors: Float, planes: Planes, beta: float) -> tuple[Float, Float, Float]:
    """As `through_features`, with absolute values: |c_rp - tanh(beta t_p)| = 1 - c_rp tanh(beta t_p)."""
    t = tanh_projections(vectors, planes)
    weighted = weighted_by_bucket(scale, vectors, planes, beta)
    all_buckets = weighted.sum(axis=-1, keepdims=True)
    moved = (1 + DIFFERENCE) * all_buckets - np.tanh(beta * t) * (weighted @ corners(planes.num_planes))
    projected = beta * moved * (1 - t**2 + DIFFERENCE)
    of_vectors = np.einsum("...lp,lpd->...d", projected, np.abs(planes.weights))
    return of_vectors, over_rows(projected, np.abs(vectors)), np.asarray((moved * np.abs(t)).sum())
