"""Draws from a discrete law by inversion, and the weighted means they estimate without bias."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.rng import Key, uniform

Float = NDArray[np.float64]


def head_uniforms(key: Key | None, shape: tuple[int, ...], items: NDArray[np.integer[Any]], step: int = 0) -> Float:
    """Uniforms by (sequence, query head, item), whatever the padding: `shape` is (B, Hq, ...), items broadcast to
    [B, Hq, M] -> [B, Hq, M]. Raises TypeError without a key."""
    if key is None:
        raise TypeError("key=None was given to draws of a step: pass a Key.")
    batch, heads = shape[:2]
    rows = np.arange(batch * heads, dtype=np.uint64).reshape(batch, heads, 1)
    return uniform(key, (rows << np.uint64(32)) | items.astype(np.uint64), step)


_LEAST, _MOST = 2.0**-500, 2.0**500


def within_range(weights: Float) -> Float:
    """`weights` if their largest is 0 or between 2^-500 and 2^500, else times the power of two that brings it below 1.

    Sums of them, and products with uniforms, then neither overflow nor lose bits.
    """
    largest = weights.max(initial=0.0)
    if largest == 0 or _LEAST <= largest <= _MOST:
        return weights
    return np.asarray(np.ldexp(weights, -np.frexp(largest)[1]))


def draw_tokens(weights: Float, points: Float) -> NDArray[np.int64]:
    """Tokens with probability weights / sum(weights), by inverting the cumulative sum at `points` in [0, 1).

    Shapes: weights [N] >= 0, points [M] -> int64 [M]. A token of weight zero is never drawn; if all weights
    are zero the law is uniform.
    """
    law = within_range(weights) if weights.any() else np.ones_like(weights)
    cumulative = np.cumsum(law)
    drawn = np.searchsorted(cumulative, points * cumulative[-1], side="right")
    return np.asarray(np.minimum(drawn, np.flatnonzero(law)[-1]))


def sample_mean(weights: Float, values: NDArray[Any], points: Float) -> tuple[Float, NDArray[np.int64]]:
    """The mean of v_J over draws J ~ weights: unbiased for sum w v / sum w. Source: S10.

    Shapes: weights [N], values [N, E], points [M] -> value [E] and the tokens drawn [M].
    """
    drawn = draw_tokens(weights, points)
    return values[drawn].astype(np.float64).mean(axis=0), drawn


def sample_mean_value_aware(
    weights: Float, norms: Float, values: NDArray[Any], points: Float
) -> tuple[Float, NDArray[np.int64]]:
    """(S/Z) times the mean of v_J/|v_J| over draws J ~ w|v|, S = sum w|v|, Z = sum w: unbiased too. Source: S10.

    `norms` may be rounded: the same rounded norm weighs and divides. Shapes as `sample_mean`, norms [N].
    """
    weights, norms = within_range(weights), within_range(norms)
    law = weights * norms
    drawn = draw_tokens(law, points)
    lengths = np.where(norms[drawn] > 0, norms[drawn], 1.0)
    directions = values[drawn].astype(np.float64) / lengths[:, None]
    return law.sum() / weights.sum() * directions.mean(axis=0), drawn
