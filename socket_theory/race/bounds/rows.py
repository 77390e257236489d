"""One row of RACE against the kernel's means: |O_i - O*_i| with O*_i = sum_j kappa_ij v_j / sum_j kappa_ij (R5).

A row is a weighted mean over the N_i keys that its query sees, so every form of `bounds.ratio` holds for it, with
kappa_ij the mean of `RaceKernel` and `entries.weight_bound(kernel, N_i)`. Here are the forms that go through the errors
of single entries, as the paper does, and so add up what they may all be wrong by.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from socket_theory.core.arguments import Float, require_above_zero, require_delta, require_nonnegative
from socket_theory.core.checks import require_count
from socket_theory.race.bounds.entries import hoeffding_entry_radius
from socket_theory.race.law import RaceKernel


def paper_row_radius(entry_error: ArrayLike, mean_distance: ArrayLike, mean_mass: ArrayLike) -> Float:
    """epsilon d_i / (m_i - epsilon), where |w-bar_ij - kappa_ij| <= epsilon for all keys j of row i; deterministic.

    With m_i >= C_1 it is at most epsilon sum_j |v_j - O*_i| / ((C_1 - epsilon) N). It is infinity where m_i <= epsilon,
    where it says nothing: more keys do not help.

    Parameters
    ----------
    entry_error : number or array
        epsilon >= 0.
    mean_distance, mean_mass : numbers or arrays
        d_i, the mean of |v_j - O*_i|, and m_i, the mean of kappa_ij, over the keys j of the row.
    """
    error, mass = require_nonnegative("entry_error", entry_error), require_above_zero("mean_mass", mean_mass)
    with np.errstate(divide="ignore", invalid="ignore"):
        radius = error * require_nonnegative("mean_distance", mean_distance) / (mass - error)
    return np.asarray(np.where(mass > error, radius, np.inf))


def entrywise_radius(
    kernel: RaceKernel, delta: float, num_tables: int, pairs: int, distance_sums: ArrayLike, realised_mass: ArrayLike
) -> Float:
    """epsilon sum_j |v_j - O*_i| / Z-bar_i: a union bound over `pairs` entries, all rows at once but for delta.

    epsilon is Hoeffding's radius of one entry at delta / pairs. Dividing by the realised Z-bar_i = sum_j w-bar_ij is
    sharper than `paper_row_radius`, and has no condition. It is what `causal` is compared with: an entry's error enters
    with its absolute value, as if no two ever cancelled, which costs a factor of the order of sqrt(N_i).
    """
    share = require_delta(delta) / require_count("pairs", pairs)
    error = hoeffding_entry_radius(kernel, share, num_tables)
    distance = require_nonnegative("distance_sums", distance_sums)
    return np.asarray(error * distance / require_above_zero("realised_mass", realised_mass))
