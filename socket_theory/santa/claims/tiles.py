"""N7: flash, tiles that draw by themselves and are merged by their mass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from socket_theory.core.claim import Claim, Context, Measurement, combine
from socket_theory.santa.claims.problems import (
    Float,
    Problem,
    covariance,
    drawn_rows,
    independent_uniforms,
    largest_gap,
    mildest,
    one_uniform,
    problems,
    softmax_weights,
)
from socket_theory.santa.estimator import Santa, ValueSampler
from socket_theory.santa.law import tiled_covariance
from socket_theory.santa.samplers import Int, split_tiles
from socket_theory.santa.tiles import (
    flash_budgets,
    floor_one_budgets,
    largest_remainder,
    merge_by_mass,
    tile_masses,
    tiled_counts,
)

Spend = Callable[[Float, int], Int]
Rows = Callable[[Problem, Int, Float], Float]
TILE = 7  # divides no number of tokens here


def tile_places(weights: Float, tile_len: int, budgets: Int) -> Float:
    """Where a tile's offset changes its counts, [T, tile_len]."""
    total = np.cumsum(split_tiles(weights, tile_len), axis=1)
    edges = budgets[:, None] * (total / np.where(total[:, -1:] > 0, total[:, -1:], 1))
    return np.asarray(np.ceil(edges) - edges)


def equal_budgets(masses: Float, samples: int) -> Int:
    return flash_budgets(len(masses), samples)


def _flash(problem: Problem, budgets: Int, points: Float) -> Float:
    return drawn_rows(Santa(problem.samples, "flash", TILE), problem.weights, points)


def _floor_one(problem: Problem, budgets: Int, points: Float) -> Float:
    return drawn_rows(Santa(problem.samples, "floor_one", TILE), problem.weights, points)


def _by_mass(problem: Problem, budgets: Int, points: Float) -> Float:
    counts = tiled_counts(problem.weights, TILE, budgets, points)
    return merge_by_mass(counts, problem.weights, TILE, budgets)


def _all_tiles_alike(problem: Problem, budgets: Int, points: Float) -> Float:
    return np.asarray(tiled_counts(problem.weights, TILE, budgets, points) / budgets.sum())


def _over_samples(problem: Problem, budgets: Int, points: Float) -> Float:
    return np.asarray(_by_mass(problem, budgets, points) * (budgets.sum() / problem.samples))


def _own_maximum(problem: Problem, budgets: Int, points: Float) -> Float:
    largest = np.repeat(split_tiles(problem.weights, TILE).max(axis=1), TILE)[: len(problem.weights)]
    masses = tile_masses(problem.weights / np.where(largest > 0, largest, 1), TILE)
    counts = tiled_counts(problem.weights, TILE, budgets, points)
    return np.asarray(counts * np.repeat(masses / budgets, TILE)[: len(problem.weights)])


def _mean(context: Context, spend: Spend, rows: Rows) -> Measurement:
    """Largest gap between the mean weight of a row and p, by cells of the offset."""
    parts = []
    for problem in problems(context):
        budgets = spend(tile_masses(problem.weights, TILE), problem.samples)
        points, probability = one_uniform(tile_places(problem.weights, TILE, budgets), len(budgets))
        parts.append(largest_gap(probability @ rows(problem, budgets, points), problem.law))
    return combine(*parts)


def _flash_mean_control(context: Context) -> Measurement:
    return mildest(*(_mean(context, equal_budgets, rows) for rows in (_all_tiles_alike, _over_samples, _own_maximum)))


def _small_tiles(rng: np.random.Generator) -> tuple[Problem, ...]:
    """Tiles of 3, 3 and 2 rows: few draws and more than rows, masked rows and a masked tile, ties, one certain row."""
    masked, certain = softmax_weights(rng, 8), np.zeros(8)
    masked[[1, 3, 4, 5]], certain[4] = 0, 0.3
    laws = [(softmax_weights(rng, 8), 7), (softmax_weights(rng, 8), 20), (masked, 7), (np.ones(8), 5), (certain, 4)]
    return tuple(Problem(weights, rng.standard_normal((8, 2)), samples) for weights, samples in laws)


def _covariance(context: Context, shared_offset: bool) -> Measurement:
    """Of flash, floor one and prop, over all outcomes of the offsets of three tiles."""
    parts, length = [], 3
    for problem in _small_tiles(context.generator()):
        masses = tile_masses(problem.weights, length)
        rounded = largest_remainder(masses, problem.samples)
        cases: tuple[tuple[ValueSampler, Int, Float], ...] = (
            ("flash", flash_budgets(3, problem.samples), masses),
            ("floor_one", floor_one_budgets(masses, problem.samples), masses),
            ("biased_prop", rounded, rounded / problem.samples),
        )
        for sampler, budgets, shares in cases:
            places = tile_places(problem.weights, length, budgets)
            points, probability = one_uniform(places, 3) if shared_offset else independent_uniforms(list(places))
            outputs = drawn_rows(Santa(problem.samples, sampler, length), problem.weights, points) @ problem.values
            closed = tiled_covariance(problem.weights, problem.values, length, budgets, shares)
            parts.append(largest_gap(covariance(probability, outputs), closed))
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
        check=partial(_mean, spend=equal_budgets, rows=_flash),
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
        check=partial(_mean, spend=floor_one_budgets, rows=_floor_one),
        control=partial(_mean, spend=largest_remainder, rows=_by_mass),
    ),
    Claim(
        id="N7.covariance",
        title="Covariance of tiles",
        statement="The covariance of flash is sum_t w_t^2 Cov_t, Cov_t that of the systematic average inside tile t, "
        "and so it is with budgets of at least one; merged as counts over S, S_t/S takes the place of w_t.",
        source="own proof",
        kind="identity",
        wrong="one offset for all tiles",
        check=partial(_covariance, shared_offset=False),
        control=partial(_covariance, shared_offset=True),
    ),
)
