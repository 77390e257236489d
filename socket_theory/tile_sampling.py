"""Tiles that draw by themselves: a budget and an offset for each tile, and the two ways to merge them (N7, N8, N10).

Tile t has mass w_t and law p_(j|t) inside. With budget k_t its counts c_j have mean k_t p_(j|t). Merged by the exact
masses, sum_t w_t sum_j c_j v_j / k_t, they are unbiased if no tile of positive mass has budget 0; merged as
sum c_j v_j / S, their mean is sum_t (k_t/S) mu_t, which is biased unless k_t = S w_t.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from socket_theory.value_sampling import Float, Int, counts_of_edges, require_law, split_tiles


def tile_masses(weights: Float, tile_len: int) -> Float:
    """w_t: weights [N] -> [T], adding up to 1. Raises ValueError as `value_sampling.require_law`."""
    masses = split_tiles(require_law(weights), tile_len).sum(axis=1)
    return np.asarray(masses / masses.sum())


def flash_budgets(num_tiles: int, num_samples: int) -> Int:
    """max(1, floor(S/T)) for every tile, so the number of draws is a multiple of T and not S."""
    return np.full(num_tiles, max(1, num_samples // num_tiles))


def largest_remainder(masses: Float, num_samples: int) -> Int:
    """floor(S w_t), and one more for the largest fractions until they add up to S; a tie goes to the later tile. N10.

    Shapes: masses [T], adding up to 1 -> [T].
    """
    quotas = num_samples * masses
    budgets = np.floor(quotas).astype(np.int64)
    ascending = np.argsort(quotas - budgets, kind="stable")
    budgets[ascending[len(masses) - (num_samples - budgets.sum()) :]] += 1
    return budgets


def floor_one_budgets(masses: Float, num_samples: int) -> Int:
    """`largest_remainder`, but at least 1 in every tile; the draws exceed S by as many as had none."""
    return np.maximum(1, largest_remainder(masses, num_samples))


def tiled_counts(weights: Float, tile_len: int, budgets: Int, offsets: Float) -> Int:
    """Systematic counts inside each tile, at its own offset; tiles of mass 0 draw nothing.

    Shapes: weights [N], budgets [..., T] and offsets [..., T] -> [..., N].
    """
    total = np.cumsum(split_tiles(weights, tile_len), axis=1)
    inside = total / np.where(total[:, -1:] > 0, total[:, -1:], 1)
    counts = counts_of_edges(budgets[..., None] * inside, offsets)
    return counts.reshape(*counts.shape[:-2], -1)[..., : len(weights)]


def merge_by_mass(counts: NDArray[np.number], weights: Float, tile_len: int, budgets: Int) -> Float:
    """The weight w_t c_j / k_t of each row: counts [..., N] -> [..., N]; the merge of flash and of floor one."""
    factors = tile_masses(weights, tile_len) / np.maximum(budgets, 1)
    return np.asarray(counts * np.repeat(factors, tile_len, axis=-1)[..., : len(weights)])
