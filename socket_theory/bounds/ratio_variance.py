"""The sharpest tail that the mean and the variance of |X-bar|^2 give, for the error |X-bar| / Z-bar of L tables (S9).

|X-bar|^2 has the mean s^2/L and the variance V = [Var |X|^2 + 2 (L - 1) tr Sigma^2] / L^3. By Cantelli's inequality it
exceeds s^2/L + sqrt(V (1 - delta)/delta) with probability at most delta, and by Markov's s^2/(L delta); the smaller of
the two is never above the fourth-moment form. It is near s^2/L where X strays in many directions, tr Sigma^2 being
small beside s^4.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from socket_theory.bounds.residual import ResidualMoments
from socket_theory.core.arguments import Float, moderate_number, require_above_zero, require_delta, round_up

_FEWEST = 2  # from here on the radius falls with every table


def variance_radius(delta: float, num_tables: int, moments: ResidualMoments, realised_mass: ArrayLike) -> Float:
    """sqrt(min(s^2/L + sqrt(V (1 - delta)/delta), s^2/(L delta))) / Z-bar, which |y_L - y| exceeds at most so often."""
    spread, odds = moments.mean_square_variance(num_tables), 1 / require_delta(delta) - 1
    mean = moments.second / num_tables
    square = min(mean + math.sqrt(spread * odds), mean / delta)
    return np.asarray(math.sqrt(square) / require_above_zero("realised_mass", realised_mass))


def variance_tables(epsilon: float, delta: float, moments: ResidualMoments, realised_mass: float) -> int:
    """The smallest L >= 2 with `variance_radius` <= epsilon, for a Z-bar that stays as given."""
    target, realised_mass = moderate_number("epsilon", epsilon), moderate_number("realised_mass", realised_mass)
    low, high = _FEWEST - 1, _FEWEST
    while variance_radius(delta, high, moments, realised_mass) > target:
        low, high = high, round_up(2.0 * high, "epsilon", epsilon)
    while high - low > 1:
        middle = (low + high) // 2
        enough = variance_radius(delta, middle, moments, realised_mass) <= target
        low, high = (low, middle) if enough else (middle, high)
    return high
