"""The range of one weight, and of a table's sum of weights: what Hoeffding's inequality needs (S8, S9)."""

from __future__ import annotations

from socket_theory.core.checks import require_count
from socket_theory.socket_lsh.law import SoftKernel


def collision_half_range(kernel: SoftKernel) -> float:
    """(sigma_+ - sigma_-)/2, the radius of one weight in Hoeffding's inequality (S8)."""
    low, high = kernel.weight_range()
    return (high - low) / 2


def weight_bound(kernel: SoftKernel, num_keys: int) -> float:
    """B = N sigma_+, the largest sum of the weights of one table (S9)."""
    return require_count("num_keys", num_keys) * kernel.weight_range()[1]
