"""Every row of causal RACE attention at once: row t is R5 with the t keys up to it, and a union over rows (R6).

Row t may fail with probability delta_t, and all hold at once but for the sum of these: delta / N for N rows, or
6 delta / (pi t)^2 for a stream that never ends, whose radius at row t grows only with the logarithm of t in the forms
of Hoeffding and Bernstein. No union over entries (i, j) is needed, since a row's error is one mean of L tables.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from socket_theory.bounds.concentration import hoeffding_radius
from socket_theory.bounds.ratio import bernstein_ratio_radius, fourth_moment_radius
from socket_theory.bounds.residual import ResidualMoments
from socket_theory.core.arguments import Float, require_above_zero, require_delta, require_nonnegative, require_rows
from socket_theory.core.checks import require_count
from socket_theory.race.bounds.entries import weight_bound
from socket_theory.race.law import RaceKernel


def row_shares(delta: float, rows: int) -> Float:
    """delta / N for each of N rows."""
    return np.full(require_count("rows", rows), require_delta(delta) / rows)


def stream_shares(delta: float, rows: int) -> Float:
    """6 delta / (pi t)^2 for the first rows of a stream, t = 1 being its first token; all add up to delta."""
    return np.asarray(require_delta(delta) * 6 / (np.pi * np.arange(1, require_count("rows", rows) + 1)) ** 2)


def diameters_so_far(values: ArrayLike) -> Float:
    """max |v_i - v_j| over i, j <= t, for each t: values [N, E] -> [N]. Time N^2 E."""
    rows = require_rows("values", values)
    furthest = [np.max(np.linalg.norm(rows[: t + 1] - row, axis=1)) for t, row in enumerate(rows)]
    return np.asarray(np.maximum.accumulate(furthest))


def causal_plug_in_radius(
    shares: Float, kernel: RaceKernel, num_tables: int, diameters: ArrayLike, realised_masses: ArrayLike
) -> Float:
    """(B_t diam_t / Z-bar_t) sqrt(2 ln(2/delta_t) / L), B_t = t ((1 + tanh(beta)^2)/2)^P: nothing exact is needed.

    Shapes: shares [N] of delta, diameters [N] of the values seen so far, and realised_masses [..., N], sum_j w-bar_tj,
    of one or more sets of tables -> [..., N].
    """
    spread, mass = require_nonnegative("diameters", diameters), require_above_zero("realised_masses", realised_masses)
    sums = [float(hoeffding_radius(s, num_tables, weight_bound(kernel, t + 1))) for t, s in enumerate(shares)]
    return np.asarray(sums * spread / mass)


def causal_moment_radius(
    shares: Float,
    kernel: RaceKernel,
    num_tables: int,
    value_radii: ArrayLike,
    moments: Sequence[ResidualMoments],
    realised_masses: ArrayLike,
) -> Float:
    """The smaller of Bernstein's and the fourth moment's radius, row by row; all rows at once but for sum(shares).

    Which is smaller depends on nothing that is drawn but Z-bar_t, by which both are divided, so choosing costs nothing.

    Shapes: shares [N], value_radii [N] of max |v_j - O*_t| over j <= t, which the diameter so far bounds, the moments
    of X_t of N rows, and realised_masses [..., N] -> [..., N].
    """
    fourth = causal_fourth_moment_radius(shares, num_tables, moments, realised_masses)
    spread, mass = require_nonnegative("value_radii", value_radii), np.asarray(realised_masses)
    bernstein = [
        bernstein_ratio_radius(share, num_tables, moment.second, weight_bound(kernel, t + 1) * spread[t], mass[..., t])
        for t, (share, moment) in enumerate(zip(shares, moments, strict=True))
    ]
    return np.minimum(np.stack(bernstein, axis=-1), fourth)


def causal_fourth_moment_radius(
    shares: Float, num_tables: int, moments: Sequence[ResidualMoments], realised_masses: ArrayLike
) -> Float:
    """(E|X-bar_t|^4 / delta_t)^(1/4) / Z-bar_t, row by row.

    Shapes: shares [N], the moments of X_t of N rows, and realised_masses [..., N] of one or more sets of tables.
    """
    mass = require_above_zero("realised_masses", realised_masses)
    pairs = enumerate(zip(shares, moments, strict=True))
    return np.stack([fourth_moment_radius(s, num_tables, m, mass[..., t]) for t, (s, m) in pairs], axis=-1)
