"""Which temperature orders two keys best (S15).

SNR(tau) = E[w_a - w_b] / sd(w_a - w_b) of one table. By the central limit theorem L tables misrank with probability
near Phi(-SNR sqrt L), so tables are proportional to SNR^-2; far in the tail that is not the law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from socket_theory.core.arguments import Float, moderate_number
from socket_theory.core.checks import require_angle
from socket_theory.core.hashing import QueryMap
from socket_theory.socket_lsh.law import SoftKernel

_COLD, _HOT, _LIMIT = 1e-3, 1e4, 1e9  # in units of the typical |h|; from _LIMIT on w is linear in h to 9 digits
_GRID = 43
_NEGLIGIBLE = 1e-3


@dataclass(frozen=True)
class TemperatureChoice:
    """A temperature, possibly infinite, and the value of the objective that it maximises."""

    temperature: float
    value: float
    objective: str


def signal_to_noise(
    kernel: SoftKernel, theta_a: ArrayLike, theta_b: ArrayLike, theta_ab: ArrayLike, query_norm: ArrayLike
) -> Float:
    """E[w_a - w_b] / sd(w_a - w_b) of one table; 0 for keys that never differ (S15). Broadcasts."""
    gap = kernel.mean_difference(theta_a, theta_b, query_norm)
    noise = np.sqrt(kernel.difference_variance(theta_a, theta_b, theta_ab, query_norm))
    return np.divide(gap, noise, out=np.zeros(np.broadcast(gap, noise).shape), where=noise > 0)


def optimal_temperature(
    theta_a: ArrayLike,
    theta_b: ArrayLike,
    theta_ab: ArrayLike,
    query_norm: float,
    *,
    num_planes: int,
    query_map: QueryMap,
    head_dim: int,
) -> TemperatureChoice:
    """The tau that maximises the smallest signal-to-noise ratio over the given pairs (theta_a < theta_b) (S15).

    Infinity where the limit tau -> infinity, the sign sketch on the same mapped query, comes within 0.1 % of the best
    finite tau: the maximum is then flat, and the sketch is the simpler method. A logarithmic grid finds the maximum, so
    it is the global one unless a peak is narrower than a factor 1.5 in tau.

    Raises
    ------
    ValueError
        If there is no pair, theta_a >= theta_b in one, or query_norm is 0: then nothing is to be told apart.
    """
    from scipy.optimize import minimize_scalar

    norm = moderate_number("query_norm", query_norm)
    SoftKernel(num_planes, 1.0, query_map, head_dim)  # names a wrong parameter
    angles = {name: require_angle(name, t) for name, t in (("theta_a", theta_a), ("theta_b", theta_b))}
    for name, angle in angles.items():
        if angle.size == 0:
            raise ValueError(f"{name} is empty: pass the angles of at least one pair of keys.")
    if not (angles["theta_a"] < angles["theta_b"]).all():
        raise ValueError("theta_a must be below theta_b in every pair: pass the nearer key first.")
    reach = norm if query_map == "linear" else min(norm, 1.0)
    height = reach / math.sqrt(head_dim) if query_map == "tanh_scaled" else reach

    def worst(log_ratio: float) -> float:
        kernel = SoftKernel(num_planes, height * math.exp(log_ratio), query_map, head_dim)
        return float(np.min(signal_to_noise(kernel, theta_a, theta_b, theta_ab, norm)))

    grid = np.linspace(math.log(_COLD), math.log(_HOT), _GRID)
    place = int(np.argmax([worst(x) for x in grid]))
    bounds = (grid[max(place - 1, 0)], grid[min(place + 1, _GRID - 1)])
    best = minimize_scalar(lambda x: -worst(x), bounds=bounds, method="bounded", options={"xatol": 1e-6})
    limit = worst(math.log(_LIMIT))
    objective = "smallest signal-to-noise ratio of a table over the pairs"
    if limit >= -best.fun * (1 - _NEGLIGIBLE):
        return TemperatureChoice(math.inf, limit, objective)
    return TemperatureChoice(height * math.exp(best.x), -float(best.fun), objective)
