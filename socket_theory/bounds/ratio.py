"""What finitely many tables cost in a weighted mean: |y_L - y| with probability at least 1 - delta (S9, R5).

Each of L independent tables gives token i a weight w_i^(l) >= 0 of mean kappa_i. With w-bar_i its mean over tables,
y_L = sum_i w-bar_i v_i / Z-bar is the estimate and y = sum_i kappa_i v_i / Z its target. X_l = sum_i w_i^(l) (v_i - y)
is centred and y_L - y = mean(X_l) / Z-bar is an identity, so a form divided by the realised Z-bar spends no probability
on it. It does not matter how a table comes to its weights. In SOCKET they are the soft collisions of keys with one
query (y is y_tau, S9), in RACE those of the keys that one row sees with its query (R5). Common arguments:

- `num_tables`: L, independent tables of iid Gaussian planes;
- `norm_bound`: R with |X_l| <= R for *every* draw of the planes, from `residual_range`; the largest |X_l| observed is
  not one;
- `weight_bound` and `value_radius`, in the paper's form only: B with sum_i w_i <= B for every draw, and
  D = max |v_i - y|, so that |X_l| <= B D, which `residual_range` never exceeds;
- `mass`: Z = sum_i kappa_i, the exact normaliser;
- `realised_mass`: Z-bar = sum_i w-bar_i, of the same tables as the estimate;
- `second_moment`: s^2 = E |X|^2, the first of `residual.ResidualMoments`.

Every inverse `*_tables` returns the smallest L whose radius is at most epsilon.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from socket_theory.bounds.concentration import bernstein_radius, bernstein_terms, hoeffding_radius, hoeffding_terms
from socket_theory.bounds.residual import ResidualMoments
from socket_theory.bounds.residual_range import residual_range, residual_range_of_any_target
from socket_theory.core.arguments import (
    Float,
    moderate_number,
    nonnegative_number,
    positive_number,
    require_above_zero,
    require_delta,
    require_nonnegative,
    require_rows,
    round_up,
)
from socket_theory.core.checks import require_count


def paper_condition_tables(delta: float, weight_bound: float, mass: float) -> int:
    """The smallest L with L >= 2 B^2 ln(8/delta) / Z^2, at which Z-bar >= Z/2 but with probability delta/4."""
    return _normaliser_tables(8 / require_delta(delta), weight_bound, mass)


def normaliser_tables(delta: float, weight_bound: float, mass: float) -> int:
    """The smallest L with L >= 2 B^2 ln(2/delta) / Z^2, the condition of `hoeffding_ratio_radius`."""
    return _normaliser_tables(2 / require_delta(delta), weight_bound, mass)


def _normaliser_tables(inverse: float, weight_bound: float, mass: float) -> int:
    ratio = positive_number("weight_bound", weight_bound) / positive_number("mass", mass)
    return round_up(2 * (ratio * ratio) * math.log(inverse), "mass", mass)


def normaliser_failure(num_tables: int, mass: ArrayLike, mass_second_moment: ArrayLike) -> Float:
    """P(Z-bar < Z/2) <= exp(-L Z^2 / (8 E Z_l^2)); E Z_l^2 <= B Z always (lower tail of nonnegative terms)."""
    ratio = require_above_zero("mass", mass) ** 2 / require_above_zero("mass_second_moment", mass_second_moment)
    return np.exp(-require_count("num_tables", num_tables) * ratio / 8)


def normaliser_failure_tables(delta: float, mass: float, mass_second_moment: float) -> int:
    """The smallest L with `normaliser_failure` <= delta: L >= 8 E Z_l^2 ln(1/delta) / Z^2."""
    z = positive_number("mass", mass)
    second = positive_number("mass_second_moment", mass_second_moment)
    return round_up(8 * (second / z / z) * math.log(1 / require_delta(delta)), "mass", mass)


def hoeffding_ratio_radius(
    delta: float, num_tables: int, weight_bound: float, value_radius: float, mass: float
) -> float:
    """The paper's form: (2 B D / Z) sqrt(2 ln(4/delta) / L), for L >= `normaliser_tables`; infinity below."""
    if require_count("num_tables", num_tables) < normaliser_tables(delta, weight_bound, mass):
        return float("inf")
    return float(hoeffding_radius(delta / 2, num_tables, 2 * _norm_bound(weight_bound, value_radius) / mass))


def hoeffding_ratio_tables(epsilon: float, delta: float, weight_bound: float, value_radius: float, mass: float) -> int:
    """The larger of the condition and 8 (B D / (Z epsilon))^2 ln(4/delta)."""
    condition = normaliser_tables(delta, weight_bound, mass)
    deviation = moderate_number("epsilon", epsilon) * moderate_number("mass", mass) / 2
    terms = hoeffding_terms(deviation, delta / 2, float(_norm_bound(weight_bound, value_radius)))
    return max(condition, round_up(terms, "epsilon", epsilon))


def plug_in_radius(delta: float, num_tables: int, norm_bound: ArrayLike, realised_mass: ArrayLike) -> Float:
    """(R / Z-bar) sqrt(2 ln(2/delta) / L), without a condition on L."""
    bound = require_nonnegative("norm_bound", norm_bound)
    return hoeffding_radius(delta, num_tables, bound / require_above_zero("realised_mass", realised_mass))


def plug_in_tables(epsilon: float, delta: float, norm_bound: float, realised_mass: float) -> int:
    """2 (R / (Z-bar epsilon))^2 ln(2/delta), for a Z-bar that stays as given."""
    deviation = moderate_number("epsilon", epsilon) * moderate_number("realised_mass", realised_mass)
    return round_up(hoeffding_terms(deviation, delta, nonnegative_number("norm_bound", norm_bound)), "epsilon", epsilon)


def bernstein_ratio_radius(
    delta: float, num_tables: int, second_moment: ArrayLike, norm_bound: ArrayLike, realised_mass: ArrayLike
) -> Float:
    """Bernstein's radius with variance s^2 and norm bound R, divided by Z-bar."""
    radius = bernstein_radius(delta, num_tables, second_moment, require_nonnegative("norm_bound", norm_bound))
    return np.asarray(radius / require_above_zero("realised_mass", realised_mass))


def bernstein_ratio_tables(
    epsilon: float, delta: float, second_moment: float, norm_bound: float, realised_mass: float
) -> int:
    """The inverse of `bernstein_ratio_radius`, for a Z-bar that stays as given."""
    deviation = moderate_number("epsilon", epsilon) * moderate_number("realised_mass", realised_mass)
    variance, bound = nonnegative_number("second_moment", second_moment), nonnegative_number("norm_bound", norm_bound)
    return round_up(bernstein_terms(deviation, delta, variance, bound), "epsilon", epsilon)


def chebyshev_radius(delta: float, num_tables: int, second_moment: ArrayLike, realised_mass: ArrayLike) -> Float:
    """s / (Z-bar sqrt(L delta)): no bound on the weights and no condition on L."""
    deviation = np.sqrt(require_nonnegative("second_moment", second_moment) / require_count("num_tables", num_tables))
    return np.asarray(deviation / (require_above_zero("realised_mass", realised_mass) * np.sqrt(require_delta(delta))))


def chebyshev_tables(epsilon: float, delta: float, second_moment: float, realised_mass: float) -> int:
    """s^2 / (Z-bar^2 epsilon^2 delta), for a Z-bar that stays as given."""
    deviation = moderate_number("epsilon", epsilon) * moderate_number("realised_mass", realised_mass)
    variance = nonnegative_number("second_moment", second_moment)
    return round_up(variance / deviation / deviation / require_delta(delta), "epsilon", epsilon)


def fourth_moment_radius(delta: float, num_tables: int, moments: ResidualMoments, realised_mass: ArrayLike) -> Float:
    """(E |X-bar|^4 / delta)^(1/4) / Z-bar, with the exact fourth moment of a mean of L tables."""
    fourth = (moments.mean_fourth(num_tables) / require_delta(delta)) ** 0.25
    return np.asarray(fourth / require_above_zero("realised_mass", realised_mass))


def empirical_bernstein_radius(
    delta: float, residuals: Float, masses: Float, weight_range: tuple[float, float], values_about_estimate: Float
) -> float:
    """A radius from the tables alone, with y unknown; infinity where its denominators are not positive.

    With c = sqrt(2 ln(4/delta)/L), f = c sqrt(2 ln(2/delta)/L) + 2 ln(4/delta)/(3L), s^2 = mean |X_l(y-hat)|^2 and
    zeta^2 = mean Z_l^2 it is the smaller of

        (s c + R* f) / (Z-bar - zeta c)   and   (s c + R^ f) / (Z-bar - zeta c - B f),

    R* the range of |X| about every possible y (`residual_range_of_any_target`), R^ that about y-hat
    (`residual_range`) and B = N w_max: a y at distance r from y-hat has a range of at most R^ + B r.

    Shapes: residuals [L, E] = X_l(y-hat) about the estimate y-hat itself and masses [L] = Z_l (`table_residuals`);
    weight_range (low, high) of every weight; values_about_estimate [N, E] = v_i - y-hat.
    """
    log_2, log_4 = np.log(2 / require_delta(delta)), np.log(4 / require_delta(delta))
    z = require_nonnegative("masses", masses)
    if z.ndim != 1 or len(z) == 0:
        raise ValueError(f"masses has shape {z.shape}: pass [L], the sum of the weights of each of L >= 1 tables.")
    x, count = require_rows("residuals", residuals, len(z)), len(z)
    spread = np.sqrt(np.mean(np.sum(x**2, axis=1)))
    c = np.sqrt(2 * log_4 / count)
    share = c * np.sqrt(2 * log_2 / count) + 2 * log_4 / (3 * count)
    left = float(np.mean(z) - np.sqrt(np.mean(z**2)) * c)
    about_any = residual_range_of_any_target(weight_range, values_about_estimate)
    about_estimate = residual_range(weight_range, values_about_estimate)
    slope = len(values_about_estimate) * weight_range[1] * share
    forms = ((about_any, left), (about_estimate, left - slope))
    return min(float((spread * c + bound * share) / room) if room > 0 else float("inf") for bound, room in forms)


def _norm_bound(weight_bound: ArrayLike, value_radius: ArrayLike) -> Float:
    """B D, which bounds |X_l|."""
    bound, radius = require_above_zero("weight_bound", weight_bound), require_nonnegative("value_radius", value_radius)
    with np.errstate(over="ignore"):
        return require_nonnegative("weight_bound * value_radius", bound * radius)
