"""The one sum of which RACE's outputs and gradients are made, over all tokens, a prefix or a suffix (R7, R8)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def sums_over_prefixes(asked: Float, held: Float, values: Float, causal: bool, chunk: int) -> Float:
    """y_i = sum_j <asked_i, held_j> values_j over all j, or over j <= i if causal, by a sum that grows with the chunks.

    Shapes: asked [..., T, F], held [..., N, F], values [..., N, E] -> [..., T, E]; T = N if causal.
    """
    if not causal:
        return np.asarray(asked @ (np.swapaxes(held, -1, -2) @ values))
    state, parts = np.zeros((held.shape[-1], values.shape[-1])), []
    for start in range(0, held.shape[-2], chunk):
        a, b, c = (rows[..., start : start + chunk, :] for rows in (asked, held, values))
        across = np.swapaxes(b, -1, -2)
        parts.append(a @ state + np.tril(a @ across) @ c)
        state = state + across @ c
    return np.concatenate(parts, axis=-2)


def sums_over_suffixes(asked: Float, held: Float, values: Float, causal: bool, chunk: int) -> Float:
    """y_i = sum_j <asked_i, held_j> values_j over all j, or over j >= i if causal, by a sum that grows from the end.

    What a prefix leaves of the total is the same number, but the subtraction loses the digits of the last tokens.
    """
    asked, held, values = (rows[..., ::-1, :] for rows in (asked, held, values))
    return sums_over_prefixes(asked, held, values, causal, chunk)[..., ::-1, :]
