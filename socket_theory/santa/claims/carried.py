"""N9: tiles that carry the phase of one systematic draw, and budgets that are drawn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from socket_theory.core.claim import Claim, Context, Measurement, combine
from socket_theory.santa.claims.problems import Float, cells, drawn_rows, largest_gap, mildest, problems
from socket_theory.santa.claims.tiles import TILE, tile_places
from socket_theory.santa.estimator import Santa
from socket_theory.santa.law import systematic_law
from socket_theory.santa.samplers import Int, systematic_counts
from socket_theory.santa.tiles import tile_masses, tiled_counts

Inside = Callable[[Float, float, float], tuple[Float, Float]]
Counts = Callable[[Float, int, Float, int, np.random.Generator], Int]


def _dyadic_weights(rng: np.random.Generator) -> Float:
    """Integers, some 0, that add up to a power of two, so that S F is exact in float64."""
    count = int(rng.integers(2, 40))
    weights = rng.integers(0, 50, size=count) * rng.integers(0, 2, size=count)
    weights[rng.integers(len(weights))] += 1
    total = int(weights.sum())
    weights[rng.integers(len(weights))] += (1 << total.bit_length()) - total
    return weights.astype(float)


def _carried(context: Context, counts: Counts) -> Measurement:
    """Counts that differ from those without tiles, in exact arithmetic, offsets on edges included."""
    rng, differences = context.generator(), 0
    for _ in range(context.samples(20)):
        weights, samples = _dyadic_weights(rng), int(rng.integers(1, 100))
        offsets = np.concatenate([np.arange(16) / 16, rng.random(8), [1 - 2.0**-53]])
        whole = systematic_counts(weights, samples, offsets)
        for tile_len in range(1, len(weights) + 1):
            differences += int(np.count_nonzero(counts(weights, samples, offsets, tile_len, rng) != whole))
    return Measurement(differences, 0)


def _estimator(context: Context) -> Measurement:
    """Rows that the estimator draws with tiles otherwise than without, for one tile length a law."""
    rng, differences = context.generator(), 0
    for _ in range(context.samples(20)):
        weights, samples = _dyadic_weights(rng), int(rng.integers(1, 100))
        offsets, tile_len = np.append(np.arange(8) / 8, 1 - 2.0**-53)[:, None], int(rng.integers(1, len(weights) + 1))
        methods = Santa(samples, "phase_carried", tile_len), Santa(samples, "systematic")
        carried, whole = (drawn_rows(method, weights, offsets) for method in methods)
        differences += int(np.count_nonzero(carried != whole))
    return Measurement(differences, 0)


def _carried_check(context: Context) -> Measurement:
    return combine(_carried(context, _phase_carried), _estimator(context))


def _phase_carried(weights: Float, samples: int, offsets: Float, tile_len: int, _: np.random.Generator) -> Int:
    return systematic_counts(weights, samples, offsets, tile_len)


def _fresh_offsets(weights: Float, samples: int, offsets: Float, tile_len: int, rng: np.random.Generator) -> Int:
    budgets = systematic_counts(tile_masses(weights, tile_len), samples, offsets)
    return tiled_counts(weights, tile_len, budgets, rng.random(budgets.shape))


def _reused_offset(weights: Float, samples: int, offsets: Float, tile_len: int, _: np.random.Generator) -> Int:
    budgets = systematic_counts(tile_masses(weights, tile_len), samples, offsets)
    return tiled_counts(weights, tile_len, budgets, np.repeat(offsets[:, None], budgets.shape[1], axis=1))


def _carried_control(context: Context) -> Measurement:
    return mildest(_carried(context, _fresh_offsets), _carried(context, _reused_offset))


def _independent_offset(places: Float, left: float, length: float) -> tuple[Float, Float]:
    offsets, lengths = cells(places)
    return offsets, length * lengths


def _offset_of_the_budgets(places: Float, left: float, length: float) -> tuple[Float, Float]:
    offsets, lengths = cells([*places.flat, left, left + length])
    return offsets, lengths * ((offsets > left) & (offsets < left + length))


def _drawn_budgets(context: Context, inside: Inside) -> Measurement:
    """Largest gap between mean counts and S p: by cells of the budgets' offset, and of the tiles' offset in each."""
    parts = []
    for problem in problems(context):
        weights, mean, left = problem.weights, np.zeros(len(problem.weights)), 0.0
        law = systematic_law(tile_masses(weights, TILE), problem.samples)
        for budgets, length in zip(law.counts, law.probability, strict=True):
            offsets, probability = inside(tile_places(weights, TILE, budgets), left, length)
            points = np.repeat(offsets[:, None], len(budgets), axis=1)
            mean += probability @ tiled_counts(weights, TILE, budgets, points)
            left += length
        parts.append(largest_gap(mean, problem.samples * problem.law))
    return combine(*parts)


CLAIMS = (
    Claim(
        id="N9.carried",
        title="Tiles that carry the phase",
        statement="Counts floor(a + Q_t + S w_t P_j) - floor(a + Q_t + S w_t P_(j-1)), Q_t = S times the mass before "
        "tile t and P the distribution function inside it, are those of systematic sampling, whatever the tiles.",
        source="own proof",
        kind="identity",
        wrong="a fresh offset in each tile; the same one in each tile without its phase",
        check=_carried_check,
        control=_carried_control,
    ),
    Claim(
        id="N9.drawn-budgets",
        title="Drawn budgets",
        statement="Budgets drawn as systematic counts of the tile masses, with independent offsets inside the tiles "
        "and counts over S, are unbiased.",
        source="own proof",
        kind="identity",
        wrong="the offset of the budgets used again inside the tiles",
        check=partial(_drawn_budgets, inside=_independent_offset),
        control=partial(_drawn_budgets, inside=_offset_of_the_budgets),
    ),
)
