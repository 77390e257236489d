"""Exact means and covariances of sampled value rows, without Monte Carlo (N3-N5, N7, N8).

A systematic draw has one uniform offset, and its counts change at no more than N offsets; between two of them lies a
cell of constant counts. Enumerating cells gives the law of the estimate, in O(N^2) memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from socket_theory.core.checks import require_count, require_numbers
from socket_theory.santa.exact import strata_of
from socket_theory.santa.samplers import Float, Int, probabilities, require_law, split_tiles, systematic_counts
from socket_theory.santa.tiles import largest_remainder, require_budgets, tile_masses


@dataclass(frozen=True, eq=False)
class CellLaw:
    """Counts [M, N] of M cells of offsets, and the length of each cell [M]."""

    counts: Int
    probability: Float

    def mean(self) -> Float:
        """E c [N]."""
        return np.asarray(self.probability @ self.counts)

    def covariance(self, values: Float) -> Float:
        """Cov of sum_j c_j v_j: values [N, E] -> [E, E]. `numpy.eye(N)` gives the covariance of the counts."""
        return _covariance(self.probability, self.counts @ values)


def require_values(values: ArrayLike, num_tokens: int) -> Float:
    """`values` as float64 if they are [num_tokens, E] and finite, else TypeError or ValueError."""
    rows = require_numbers("values", values)
    if rows.ndim != 2 or len(rows) != num_tokens:
        raise ValueError(f"values has shape {rows.shape}: pass [{num_tokens}, E], a row for each weight.")
    if not np.isfinite(rows).all():
        raise ValueError("values contains NaN or infinity: pass finite numbers.")
    return rows


def systematic_law(weights: Float, num_samples: int) -> CellLaw:
    """The law of `systematic_counts`: at most N + 1 cells. Source: N1."""
    law = require_law(weights)
    edges = require_count("num_samples", num_samples) * np.cumsum(law)[:-1] / law.sum()
    borders = np.unique(np.concatenate([[0.0], np.ceil(edges) - edges, [1.0]]))
    middles = np.minimum((borders[1:] + borders[:-1]) / 2, np.nextafter(1.0, 0.0))
    return CellLaw(systematic_counts(weights, num_samples, middles), np.diff(borders))


def value_covariance(weights: Float, values: Float) -> Float:
    """Sigma = sum_j p_j (v_j - mu)(v_j - mu)^T: weights [N], values [N, E] -> [E, E]."""
    law = probabilities(weights)
    return _covariance(law, require_values(values, len(law)))


def iid_covariance(weights: Float, values: Float, num_samples: int) -> Float:
    """Sigma / S, the covariance of the mean of S independent draws. Source: N3."""
    return value_covariance(weights, values) / require_count("num_samples", num_samples)


def stratified_covariance(weights: Float, values: Float, num_samples: int) -> Float:
    """S^-2 times the sum of the covariances inside the strata. Source: N4."""
    strata = stratum_laws(weights, num_samples)
    rows = require_values(values, strata.shape[1])
    return np.asarray(sum(_covariance(law, rows) for law in strata) / num_samples**2)


def systematic_covariance(weights: Float, values: Float, num_samples: int) -> Float:
    """Covariance of sum_j c_j v_j / S with systematic counts, by cells. Source: N5."""
    law = systematic_law(weights, num_samples)
    return law.covariance(require_values(values, law.counts.shape[1])) / num_samples**2


def stratum_laws(weights: Float, num_samples: int) -> Float:
    """The law of the draw in each stratum [m/S, (m+1)/S), which is its overlap with the tokens: [N] -> [S, N].

    Exact for the weights as they are given, but for one rounding of each entry: 0 only where they do not meet.
    """
    law, samples = require_law(weights), require_count("num_samples", num_samples)
    laws, pieces = np.zeros((samples, len(law))), strata_of(law, samples)
    laws[pieces.strata, pieces.tokens] = pieces.overlaps
    return laws


def tiled_covariances(weights: Float, values: Float, tile_len: int, budgets: Int) -> Float:
    """Cov_t of sum_(j in t) c_j v_j / k_t in each tile, zero where it draws nothing: [T, E, E]. Source: N7."""
    law, masses = require_law(weights), tile_masses(weights, tile_len)
    rows, spent = require_values(values, len(law)), require_budgets(budgets, len(masses))
    covariances = np.zeros((len(masses), rows.shape[1], rows.shape[1]))
    for tile in np.flatnonzero((spent > 0) & (masses > 0)):
        inside = slice(tile * tile_len, (tile + 1) * tile_len)
        covariances[tile] = systematic_covariance(law[inside], rows[inside], int(spent[tile]))
    return covariances


def tiled_covariance(weights: Float, values: Float, tile_len: int, budgets: Int, shares: Float) -> Float:
    """sum_t share_t^2 Cov_t: shares are the masses w_t for flash and floor one, k_t / S for prop. Source: N7."""
    return np.asarray(np.einsum("t,tij->ij", shares**2, tiled_covariances(weights, values, tile_len, budgets)))


def tile_means(weights: Float, values: Float, tile_len: int) -> Float:
    """mu_t = sum_j p_(j|t) v_j: values [N, E] -> [T, E]; 0 for a tile of mass 0."""
    law = require_law(weights)
    masses = split_tiles(law, tile_len).sum(axis=1)[:, None]
    weighted = law[:, None] * require_values(values, len(law))
    sums = np.add.reduceat(weighted, np.arange(0, len(law), tile_len), axis=0)
    return np.asarray(sums / np.where(masses > 0, masses, 1))


def prop_bias(weights: Float, values: Float, num_samples: int, tile_len: int) -> Float:
    """sum_t (S_t/S - w_t) mu_t, the bias [E] of largest-remainder budgets merged as counts over S. Source: N8."""
    masses = tile_masses(weights, tile_len)
    rounding = largest_remainder(masses, num_samples) / num_samples - masses
    return np.asarray(rounding @ tile_means(weights, values, tile_len))


def _covariance(law: Float, values: Float) -> Float:
    centred = values - law @ values
    return np.asarray((law[:, None] * centred).T @ centred)
