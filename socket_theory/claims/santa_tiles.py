"""N7: flash, tiles that draw by themselves and are merged by their mass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from socket_theory.claims.engine import Claim, Context, Measurement, combine, inequality
from socket_theory.claims.santa_problems import (
    Float,
    Problem,
    covariance,
    independent_uniforms,
    largest_gap,
    mildest,
    one_uniform,
    problems,
    softmax_weights,
)
from socket_theory.tile_sampling import (
    flash_budgets,
    floor_one_budgets,
    largest_remainder,
    merge_by_mass,
    tile_masses,
    tiled_counts,
)
from socket_theory.value_sampling import Int, split_tiles
from socket_theory.value_sampling_moments import systematic_law, tiled_covariance

Spend = Callable[[Float, int], Int]
Merge = Callable[[Int, Problem, int, Int], Float]
TILE = 7  # divides no number of tokens here


def tile_places(weights: Float, tile_len: int, budgets: Int) -> Float:
    """Where a tile's offset changes its counts, [T, tile_len]."""
    total = np.cumsum(split_tiles(weights, tile_len), axis=1)
    edges = budgets[:, None] * (total / np.where(total[:, -1:] > 0, total[:, -1:], 1))
    return np.asarray(np.ceil(edges) - edges)


def _equal(masses: Float, samples: int) -> Int:
    return flash_budgets(len(masses), samples)


def _by_mass(counts: Int, problem: Problem, tile_len: int, budgets: Int) -> Float:
    return merge_by_mass(counts, problem.weights, tile_len, budgets)


def _all_tiles_alike(counts: Int, problem: Problem, tile_len: int, budgets: Int) -> Float:
    return np.asarray(counts / budgets.sum())


def _over_samples(counts: Int, problem: Problem, tile_len: int, budgets: Int) -> Float:
    return np.asarray(_by_mass(counts, problem, tile_len, budgets) * (budgets.sum() / problem.samples))


def _own_maximum(counts: Int, problem: Problem, tile_len: int, budgets: Int) -> Float:
    tiles = split_tiles(problem.weights, tile_len)
    largest = np.repeat(tiles.max(axis=1), tile_len)[: len(problem.weights)]
    masses = tile_masses(problem.weights / np.where(largest > 0, largest, 1), tile_len)
    return np.asarray(counts * np.repeat(masses / budgets, tile_len)[: len(problem.weights)])


def _mean(context: Context, spend: Spend, merge: Merge) -> Measurement:
    """Largest gap between the mean weight of a row and p, by cells of the offset."""
    parts = []
    for problem in problems(context):
        budgets = spend(tile_masses(problem.weights, TILE), problem.samples)
        points, probability = one_uniform(tile_places(problem.weights, TILE, budgets), len(budgets))
        counts = tiled_counts(problem.weights, TILE, budgets, points)
        parts.append(largest_gap(probability @ merge(counts, problem, TILE, budgets), problem.law))
    return combine(*parts)


def _flash_mean_control(context: Context) -> Measurement:
    return mildest(*(_mean(context, _equal, merge) for merge in (_all_tiles_alike, _over_samples, _own_maximum)))


def _flash_covariance(context: Context, shared_offset: bool) -> Measurement:
    """Tiles of 3, 3 and 2 rows with 2 draws each: all outcomes of their offsets."""
    rng = context.generator()
    weights, values, budgets = softmax_weights(rng, 8), rng.standard_normal((8, 2)), flash_budgets(3, 7)
    places = tile_places(weights, 3, budgets)
    points, probability = one_uniform(places, 3) if shared_offset else independent_uniforms(list(places))
    outputs = merge_by_mass(tiled_counts(weights, 3, budgets, points), weights, 3, budgets) @ values
    masses = tile_masses(weights, 3)
    return largest_gap(covariance(probability, outputs), tiled_covariance(weights, values, 3, budgets, masses))


def _flash_rows(context: Context, independent: bool) -> Measurement:
    """T against the fewest rows read at any offset; the control carries the phase through as many draws."""
    parts = []
    for problem in problems(context):
        weights = problem.weights + 1e-6
        budgets = flash_budgets(-(-len(weights) // TILE), problem.samples)
        points, _ = one_uniform(tile_places(weights, TILE, budgets), len(budgets))
        counts = tiled_counts(weights, TILE, budgets, points)
        drawn = counts if independent else systematic_law(weights, int(budgets.sum())).counts
        parts.append(inequality(len(budgets), np.count_nonzero(drawn, axis=-1).min()))
    return combine(*parts)


CLAIMS = (
    Claim(
        id="N7.mean",
        title="Flash is unbiased",
        statement="Tiles with the same budget k = max(1, floor(S/T)) and offsets of their own, merged as "
        "sum_t w_t sum_j c_j v_j / k by their exact masses w_t, have mean mu, whatever T and S.",
        source="own proof",
        kind="identity",
        wrong="tiles merged by 1/T; S for the divisor k T; tile sums relative to their own maxima merged as they are",
        check=partial(_mean, spend=_equal, merge=_by_mass),
        control=_flash_mean_control,
    ),
    Claim(
        id="N7.floor-one",
        title="Budgets of at least one",
        statement="Largest-remainder budgets raised to at least 1 in every tile, merged by the exact masses, have mean "
        "mu.",
        source="own proof",
        kind="identity",
        wrong="the budgets not raised, so that some tiles have none",
        check=partial(_mean, spend=floor_one_budgets, merge=_by_mass),
        control=partial(_mean, spend=largest_remainder, merge=_by_mass),
    ),
    Claim(
        id="N7.covariance",
        title="Covariance of flash",
        statement="The covariance of flash is sum_t w_t^2 Cov_t, Cov_t that of the systematic average inside tile t.",
        source="own proof",
        kind="identity",
        wrong="one offset for all tiles",
        check=partial(_flash_covariance, shared_offset=False),
        control=partial(_flash_covariance, shared_offset=True),
    ),
    Claim(
        id="N7.rows",
        title="Rows of flash",
        statement="Every draw of flash reads at least one row of each tile of positive mass.",
        source="own proof",
        kind="inequality",
        wrong="as many draws with the phase carried, which may skip a tile",
        check=partial(_flash_rows, independent=True),
        control=partial(_flash_rows, independent=False),
    ),
)
