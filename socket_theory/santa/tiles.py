"""Tiles that draw by themselves: a budget and an offset for each tile, and the two ways to merge them (N7, N8, N10).

Tile t has mass w_t and law p_(j|t) inside. With budget k_t its counts c_j have mean k_t p_(j|t). Merged by the exact
masses, sum_t w_t sum_j c_j v_j / k_t, they are unbiased if no tile of positive mass has budget 0; merged as
sum c_j v_j / S, their mean is sum_t (k_t/S) mu_t, which is biased unless k_t = S w_t.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from socket_theory.core.checks import read_array, require_count
from socket_theory.santa.exact import as_integers, require_draws
from socket_theory.santa.samplers import Float, Int, counts_of_edges, require_law, require_uniforms, split_tiles

_LEAST_ROUNDING = 10**9  # 1 over how far from 1 the masses may add up to


def tile_masses(weights: Float, tile_len: int) -> Float:
    """w_t: weights [N] -> [T], adding up to 1. Raises as `santa.samplers.require_law`."""
    masses = split_tiles(require_law(weights), tile_len).sum(axis=1)
    return np.asarray(masses / masses.sum())


def require_budgets(budgets: ArrayLike, num_tiles: int) -> Int:
    """`budgets` if they are integers of at least 0, one for each of `num_tiles` tiles, else ValueError."""
    array = read_array("budgets", budgets)
    if array.dtype.kind not in "iu" or array.ndim == 0 or array.shape[-1] != num_tiles or (array < 0).any():
        raise ValueError(
            f"budgets of shape {array.shape} and dtype {array.dtype} were given for {num_tiles} tiles: "
            "pass an integer of at least 0 for each."
        )
    return array


def flash_budgets(num_tiles: int, num_samples: int) -> Int:
    """max(1, floor(S/T)) for every tile, so the number of draws is a multiple of T and not S."""
    tiles, samples = require_count("num_tiles", num_tiles), require_count("num_samples", num_samples)
    return np.full(tiles, max(1, samples // tiles))


def largest_remainder(masses: Float, num_samples: int) -> Int:
    """floor(S w_t), and one more for the largest fractions until they add up to S; a tie goes to the later tile. N10.

    Exact for the masses as they are given: no product S w_t is rounded.

    Shapes: masses [T] -> [T]. Raises as `santa.samplers.require_law`, and ValueError beyond 2^32 draws, or if the sum
    of the masses is not within 1e-9 and within 1/S of 1.
    """
    budgets, fractions = split_quotas(masses, num_samples)
    ascending = np.argsort(fractions, kind="stable")
    budgets[ascending[len(budgets) - (num_samples - budgets.sum()) :]] += 1
    return budgets


def split_quotas(masses: Float, num_samples: int) -> tuple[Int, NDArray[Any]]:
    """floor(S w_t), and what S w_t has above it in units of one power of two, both exact: [T] -> [T], [T].

    Raises as `largest_remainder`.
    """
    shares, samples = require_law(masses, "masses"), require_draws(num_samples)
    integers, power = as_integers(shares)
    if abs(integers.sum() - 2**power) * max(samples, _LEAST_ROUNDING) >= 2**power:
        raise ValueError(
            f"masses add up to {shares.sum():.12g}: pass masses that add up to 1, as tile_masses gives, "
            "within 1e-9 and within 1 / num_samples."
        )
    quotas = samples * integers
    return (quotas >> power).astype(np.int64), quotas & (2**power - 1)


def floor_one_budgets(masses: Float, num_samples: int) -> Int:
    """`largest_remainder`, but at least 1 in every tile; the draws exceed S by as many as had none."""
    return np.maximum(1, largest_remainder(masses, num_samples))


def tiled_counts(weights: Float, tile_len: int, budgets: Int, offsets: Float) -> Int:
    """Systematic counts inside each tile, at its own offset; tiles of mass 0 draw nothing.

    Shapes: weights [N], budgets [..., T] and offsets [..., T] -> [..., N]. Raises ValueError for any other.
    """
    law = require_law(weights)
    total = np.cumsum(split_tiles(law, tile_len), axis=1)
    spent, points = require_budgets(budgets, len(total)), require_uniforms("offsets", offsets)
    if points.shape[-1:] != (len(total),):
        raise ValueError(f"offsets of shape {points.shape} were given for {len(total)} tiles: pass one for each.")
    inside = total / np.where(total[:, -1:] > 0, total[:, -1:], 1)
    counts = counts_of_edges(spent[..., None] * inside, points)
    return counts.reshape(*counts.shape[:-2], -1)[..., : len(law)]


def merge_by_mass(counts: NDArray[np.number], weights: Float, tile_len: int, budgets: Int) -> Float:
    """The weight w_t c_j / k_t of each row: counts [..., N] -> [..., N]; the merge of flash and of floor one."""
    if counts.shape[-1:] != (len(weights),):
        raise ValueError(f"counts of shape {counts.shape} were given for {len(weights)} weights: pass one for each.")
    masses = tile_masses(weights, tile_len)
    factors = masses / np.maximum(require_budgets(budgets, len(masses)), 1)
    return np.asarray(counts * np.repeat(factors, tile_len, axis=-1)[..., : len(weights)])
