"""How far one weight can lie from its mean, and the largest sum of the weights of a table (S8, S9)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from socket_theory.core.arguments import Float
from socket_theory.core.checks import require_count
from socket_theory.core.hashing import query_map_bound
from socket_theory.core.power import power_step
from socket_theory.socket_lsh.law import SoftKernel


def collision_half_range(kernel: SoftKernel) -> float:
    """(sigma_+ - sigma_-)/2, the radius of one weight in Hoeffding's inequality (S8)."""
    low, high = kernel.weight_range()
    return (high - low) / 2


def collision_reach(kernel: SoftKernel, theta: ArrayLike, query_norm: ArrayLike) -> tuple[Float, Float]:
    """(sigma_+ - kappa, kappa - sigma_-): how far a weight can lie above its mean, and below it (S8).

    `above` and `below` of `bounds.concentration`; Bernstein's radius is the larger of both. Broadcasts, and loses no
    digits where both ends nearly agree, as at large tau.
    """
    mean, excess = kernel.bit_mean(theta, query_norm), kernel.bit.excess(theta, query_norm)
    steepest = query_map_bound(kernel.query_map, kernel.head_dim) / kernel.temperature
    half = np.tanh(steepest) / 2  # a bit lies in 1/2 -+ half
    above = power_step(mean, np.maximum(half - excess, 0), kernel.num_planes)
    return above, power_step(0.5 - half, np.maximum(half + excess, 0), kernel.num_planes)


def weight_bound(kernel: SoftKernel, num_keys: int) -> float:
    """B = N sigma_+, the largest sum of the weights of one table (S9)."""
    return require_count("num_keys", num_keys) * kernel.weight_range()[1]
