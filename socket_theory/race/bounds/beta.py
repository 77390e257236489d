"""Which beta estimates the angular kernel best with a given number of tables (R10).

Raised, beta lowers the bias of an entry and raises its variance, which L tables divide by L: the more tables, the
larger the best beta. Both terms are exact (R2). A bound on the bias, such as R3's, is no substitute for it: the bias is
of order 1/beta^2 at most angles and the bound of order 1/beta, so it asks for a beta many times too large.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from socket_theory.core.arguments import Float
from socket_theory.core.checks import require_count
from socket_theory.race.law import RaceKernel

_SMALLEST, _LARGEST, _GRID = 1e-2, 1e3, 46


def mean_square_error(
    kernel: RaceKernel, num_tables: int, theta: ArrayLike, query_norm: ArrayLike, key_norm: ArrayLike | None = None
) -> Float:
    """E (w-bar - kappa_0)^2 = (g_beta^P - kappa_0)^2 + Var w / L of an entry of L tables, exactly (R10). Broadcasts.

    key_norm None is query_norm. Raised, num_tables lowers the second term alone.
    """
    other = query_norm if key_norm is None else key_norm
    bias = kernel.mean(theta, query_norm, other) - kernel.hard_kernel(theta)
    variance = kernel.variance(theta, query_norm, other)
    return np.asarray(bias**2 + variance / require_count("num_tables", num_tables))


def optimal_beta(
    num_tables: int, num_planes: int, theta: ArrayLike, query_norm: ArrayLike, key_norm: ArrayLike | None = None
) -> float:
    """The beta with the least `mean_square_error`, or the least mean of it over several pairs (R10).

    0 or infinity where no beta is better than that limit: 0 at a right angle, where a flat kernel has no bias, infinity
    at an angle of 0. A logarithmic grid finds the minimum, so it is the global one unless a valley is narrower than a
    factor 1.3 in beta.

    Parameters
    ----------
    num_tables : int
        L. Raised, it raises the result.
    num_planes : int
        P. It changes the result little where the angle is small, and lowers kappa_0.
    theta : float or array
        Angles between query and key, in [0, pi]. Near pi/2 the bias vanishes and the result falls.
    query_norm, key_norm : float or array
        Lengths. Raised, they lower the result: long vectors are far from most planes. key_norm None is query_norm.
    """
    from scipy.optimize import minimize_scalar

    def error(beta: float) -> float:
        return float(np.mean(mean_square_error(RaceKernel(num_planes, beta), num_tables, theta, query_norm, key_norm)))

    grid = np.linspace(math.log(_SMALLEST), math.log(_LARGEST), _GRID)
    place = int(np.argmin([error(math.exp(x)) for x in grid]))
    around = grid[max(place - 1, 0)], grid[min(place + 1, _GRID - 1)]
    best = minimize_scalar(lambda x: error(math.exp(x)), bounds=around, method="bounded", options={"xatol": 1e-8})
    hard = RaceKernel(num_planes, 1.0).hard_kernel(theta)
    limits = {0.0: np.mean((0.5**num_planes - hard) ** 2), math.inf: np.mean(hard * (1 - hard)) / num_tables}
    limit = min(limits, key=lambda beta: float(limits[beta]))
    return limit if limits[limit] <= best.fun else math.exp(best.x)
