"""Soft buckets of queries and keys: the features whose inner products RACE attends by (R1).

Notation: L tables of P planes w_lp; z_lp = <w_lp, x>, t = tanh z; R = 2^P buckets a table, bucket r a corner c_r of
{-1, +1}^P whose bit p, the least significant first, is 1 where c_rp = +1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from socket_theory.core.checks import require_positive
from socket_theory.core.hashing import Planes

MOST_FEATURES = 4096
"""Most features L * 2^P."""
STEEPEST = 80.0
"""Largest beta * P: the least product of two features, exp(-4 beta P), has to stay in float64."""


def require_beta(beta: float, num_planes: int) -> float:
    """`beta` as a float above 0 whose features float64 holds, else TypeError or ValueError."""
    number = require_positive("beta", beta)
    if number * num_planes > STEEPEST:
        raise ValueError(
            f"beta={beta!r} was given with num_planes={num_planes}: pass at most {STEEPEST / num_planes:g}, beyond "
            "which features vanish in float64."
        )
    return number


def require_features(num_planes: int, num_tables: int) -> None:
    """ValueError for more features than a state should hold."""
    if num_tables * 2**num_planes > MOST_FEATURES:
        raise ValueError(
            f"num_planes={num_planes} and num_tables={num_tables} were given, {num_tables * 2**num_planes} features: "
            f"pass num_tables * 2**num_planes of at most {MOST_FEATURES}."
        )


def soft_buckets(vectors: Any, weights: Any, beta: float) -> Any:
    """phi_l(x)_r = prod_p sigma(2 beta c_rp tanh z_lp), how far x lies in each bucket of each table (R1).

    Each table's features add up to 1, and with beta they turn into a one at the bucket of the signs. Source: RACE,
    softmax over corners of beta <tanh(W x), c_r>, written as a product over bits.

    Shapes: vectors [..., D], weights [L, P, D] of the planes -> float64 [..., L, 2^P]. Arrays of NumPy or CuPy.
    """
    steep = 2 * beta * np.tanh(np.einsum("...d,lpd->...lp", vectors.astype(np.float64), weights))
    up, down = (1 / (1 + np.exp(-sign * steep)) for sign in (1, -1))
    features = np.concatenate([down[..., :1], up[..., :1]], axis=-1)
    for p in range(1, weights.shape[1]):
        features = np.concatenate([features * down[..., p : p + 1], features * up[..., p : p + 1]], axis=-1)
    return features


def collision_weights(query: Any, keys: Any, planes: Planes, beta: float) -> Any:
    """w-bar_ij = mean_l <phi_l(q_i), phi_l(k_j)>, the weight of key j for query i.

    Shapes: query [..., T, D], keys [..., N, D] -> [..., T, N]. Memory T N: for tests and small inputs.
    """
    asked, held = (soft_buckets(x, planes.weights, beta) for x in (query, keys))
    return np.einsum("...tlr,...nlr->...tn", asked, held) / planes.num_tables
