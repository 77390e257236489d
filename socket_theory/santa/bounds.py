"""Deviation of sampled values from their mean, given the scores (N7, N8, N13).

Assumption of B.1: |m^ - mu| is the norm of a mean of S independent centred vectors, so it holds for iid and stratified
draws with count S, for tiles with offsets of their own with count 1, and not for systematic draws, whose one offset
decides all counts: those have `koksma_radius`, Chebyshev with `systematic_covariance`, and the exact `systematic_law`.
The radius is a distance from the mean; the largest |v_j| in its place is no bound.

Every inequality is dimension-free (Pinelis 1994). A spread gives `bernstein(delta, count)`, the exact inversion of B.1;
`plain_spread(weights, values)` is that of iid draws, and `bernstein_samples(epsilon, delta)` of it the S they need.
The spreads of strata, flash and prop are made for one S and change with it, so `bernstein_samples` of them is no S: try
S until the spread made for it has `bernstein(delta, S)`, with tiles `bernstein(delta, 1)`, at most epsilon.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from socket_theory.bounds.importance import SamplingSpread
from socket_theory.core.arguments import Float, require_above_zero, require_delta, require_nonnegative, require_rows
from socket_theory.core.checks import require_count
from socket_theory.santa.exact import strata_of
from socket_theory.santa.law import tile_means, tiled_covariances
from socket_theory.santa.samplers import Int, require_law
from socket_theory.santa.tiles import flash_budgets, largest_remainder, tile_masses


def sampling_failure(deviation: ArrayLike, num_samples: int, spread: SamplingSpread) -> Float:
    """B.1: P(|m^ - mu| >= t) <= 2 exp(-S t^2 / (2 (v + L t/3))), capped at 1. Source: N13.

    Without any spread, as for a one-hot law, it is 1 at t = 0 and else 0.
    """
    t, samples = require_nonnegative("deviation", deviation), require_count("num_samples", num_samples)
    scale = 2 * (spread.variance + spread.radius * t / 3)
    exponent = np.divide(samples * t * t, scale, out=np.where(t > 0, np.inf, 0.0), where=scale > 0)
    return np.asarray(np.minimum(1.0, 2 * np.exp(-exponent)))


def bennett_failure(deviation: ArrayLike, num_samples: int, spread: SamplingSpread) -> Float:
    """2 exp(-(S v/L^2) H(L t/v)), H(x) = (1+x) ln(1+x) - x, capped at 1: never above B.1. Source: N13.

    Without variance it is 1 at t = 0 and else 0.
    """
    t, samples = require_nonnegative("deviation", deviation), require_count("num_samples", num_samples)
    if spread.variance == 0:
        return np.where(t > 0, 0.0, 1.0)
    ratio = spread.radius * t / spread.variance
    height = samples * spread.variance / require_above_zero("radius", spread.radius) ** 2
    return np.asarray(np.minimum(1.0, 2 * np.exp(-height * ((1 + ratio) * np.log1p(ratio) - ratio))))


def two_term_radius(delta: float, num_samples: int, spread: SamplingSpread) -> float:
    """sqrt(2 v a) + 2 L a/3, a = ln(2/delta)/S: the paper's radius, never below the exact inversion of B.1."""
    share = math.log(2 / require_delta(delta)) / require_count("num_samples", num_samples)
    return math.sqrt(2 * spread.variance * share) + 2 * spread.radius * share / 3


def stratified_spread(weights: Float, values: Float, num_samples: int) -> SamplingSpread:
    """The mean of the strata's variances, and the largest distance of a row from the mean of a stratum it is in.

    A row is in every stratum that it meets, however little of it: which ones is decided by the weights as they are
    given, without rounding. For `num_samples` draws; never above `plain_spread` in variance.

    Shapes: weights [N], values [N, E].
    """
    law, samples = require_law(weights), require_count("num_samples", num_samples)
    strata, tokens, overlaps, _ = strata_of(law, samples)
    rows = require_rows("values", values, len(law))[tokens]
    means = np.add.reduceat(overlaps[:, None] * rows, np.searchsorted(strata, np.arange(samples)), axis=0)
    squares = ((rows - means[strata]) ** 2).sum(axis=-1)
    return SamplingSpread(float(np.sqrt(squares.max())), float(overlaps @ squares) / samples)


def flash_spread(weights: Float, values: Float, num_samples: int, tile_len: int) -> SamplingSpread:
    """Of flash's output about mu, with count 1: sum_t w_t^2 tr Cov_t, and the largest w_t max_(j in t) |v_j - mu_t|."""
    law = require_law(weights)
    masses = tile_masses(law, tile_len)
    return _tiled_spread(law, values, tile_len, flash_budgets(len(masses), num_samples), masses)


def prop_spread(weights: Float, values: Float, num_samples: int, tile_len: int) -> SamplingSpread:
    """Of prop's output about its own mean, with count 1: S_t/S in the place of w_t. Add |bias| for the way to mu."""
    law = require_law(weights)
    budgets = largest_remainder(tile_masses(law, tile_len), num_samples)
    return _tiled_spread(law, values, tile_len, budgets, budgets / num_samples)


def rounded_mass(masses: Float, num_samples: int) -> float:
    """TV = sum_t |S_t/S - w_t| / 2, so that prop's bias is at most TV times the largest |mu_s - mu_t|. Source: N8.

    Shapes: masses [T], adding up to 1.
    """
    return float(np.abs(largest_remainder(masses, num_samples) / num_samples - masses).sum() / 2)


def rounded_mass_bound(num_tiles: int, num_samples: int) -> float:
    """T/(4S), which `rounded_mass` never exceeds: the r tiles rounded up move at most r (T - r)/(T S). Source: N8."""
    return require_count("num_tiles", num_tiles) / (4 * require_count("num_samples", num_samples))


def koksma_radius(values: Float, num_samples: int) -> float:
    """sum_j |v_(j+1) - v_j| / S, which no systematic draw exceeds, whatever its offset. Source: N5.

    Shapes: values [N, E].
    """
    steps = np.diff(require_rows("values", values), axis=0)
    return float(np.sqrt((steps * steps).sum(axis=-1)).sum() / require_count("num_samples", num_samples))


def _tiled_spread(law: Float, values: Float, tile_len: int, budgets: Int, shares: Float) -> SamplingSpread:
    values = require_rows("values", values, len(law))
    means = np.repeat(tile_means(law, values, tile_len), tile_len, axis=0)[: len(law)]
    rows = np.where(law[:, None] > 0, values, means)
    distance = np.sqrt(((rows - means) ** 2).sum(axis=-1)) * np.repeat(shares, tile_len)[: len(law)]
    traces = np.einsum("tii->t", tiled_covariances(law, rows, tile_len, budgets))
    return SamplingSpread(float(distance.max()), float(shares**2 @ traces))
