"""How far one entry, a mean over L tables, strays from its expectation: its range, and the radii of R4.

Assumptions: L independent tables of P iid Gaussian planes. A radius holds for one pair of a query and a key: for n
pairs at once, pass delta / n.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from socket_theory.bounds.concentration import bernstein_radius, hoeffding_radius
from socket_theory.core.arguments import Float
from socket_theory.core.checks import require_count
from socket_theory.race.law import RaceKernel


def collision_half_range(kernel: RaceKernel) -> float:
    """Half the length of [((1 - T^2)/2)^P, ((1 + T^2)/2)^P], T = tanh beta, in which every weight lies (R4).

    Raised, beta widens it to 1/2; raised, num_planes narrows it.
    """
    low, high = kernel.weight_range()
    return (high - low) / 2


def collision_reach(
    kernel: RaceKernel, theta: ArrayLike, query_norm: ArrayLike, key_norm: ArrayLike
) -> tuple[Float, Float]:
    """(w_max - kappa, kappa - w_min): how far a weight can lie above its mean, and below it, broadcast (R4).

    `above` and `below` of `bounds.concentration`, whose `two_point_radius` is sharper than the radii here.
    """
    (low, high), mean = kernel.weight_range(), kernel.mean(theta, query_norm, key_norm)
    return np.maximum(high - mean, 0), np.maximum(mean - low, 0)


def weight_bound(kernel: RaceKernel, num_keys: int) -> float:
    """B = N ((1 + tanh(beta)^2)/2)^P, the largest sum of N weights of one table (R5)."""
    return require_count("num_keys", num_keys) * kernel.weight_range()[1]


def hoeffding_entry_radius(kernel: RaceKernel, delta: float, num_tables: int) -> float:
    """(w_max - w_min) sqrt(ln(2/delta) / (2 L)), which |w-bar - kappa| exceeds with probability at most delta (R4).

    It knows neither the angle nor the lengths. Four times the tables halve it; delta enters by its logarithm; beta
    raises it, and num_planes lowers it, through the range.
    """
    return float(hoeffding_radius(delta, num_tables, collision_half_range(kernel)))


def bernstein_entry_radius(
    kernel: RaceKernel,
    delta: float,
    num_tables: int,
    theta: ArrayLike,
    query_norm: ArrayLike,
    key_norm: ArrayLike,
) -> Float:
    """Bernstein's radius with the exact variance of R2 and the larger of the weight's two reaches, broadcast (R4).

    With a = ln(2/delta)/L and R = max(w_max - kappa, kappa - w_min) it is R a/3 + sqrt((R a/3)^2 + 2 a Var w). It is
    below `hoeffding_entry_radius` where Var w is well below (w_max - w_min)^2/4: at wide angles, many planes, and short
    vectors or small beta. Raised, num_tables lowers it, first as 1/L and then as 1/sqrt(L).
    """
    variance = kernel.variance(theta, query_norm, key_norm)
    radius = np.maximum(*collision_reach(kernel, theta, query_norm, key_norm))
    return np.asarray(bernstein_radius(delta, num_tables, variance, radius))
