"""N8, N10: largest-remainder budgets, what they are and the bias they bring."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from socket_theory.core.claim import Claim, Context, Measurement, combine, inequality
from socket_theory.santa.bounds import rounded_mass, rounded_mass_bound
from socket_theory.santa.claims.problems import (
    ROUNDING,
    Float,
    Problem,
    drawn_rows,
    largest_gap,
    mildest,
    one_uniform,
    problems,
)
from socket_theory.santa.claims.tiles import TILE, tile_places
from socket_theory.santa.estimator import Santa
from socket_theory.santa.law import prop_bias
from socket_theory.santa.samplers import Int
from socket_theory.santa.tiles import largest_remainder, merge_by_mass, split_quotas, tile_masses, tiled_counts

Budgets = Callable[[Float, int], Int]
Rows = Callable[[Problem, Int, Float], Float]
Predicted = Callable[[Float, Float, int, int], Float]


def _over_samples(problem: Problem, budgets: Int, points: Float) -> Float:
    return drawn_rows(Santa(problem.samples, "biased_prop", TILE), problem.weights, points)


def _empty_dropped(problem: Problem, budgets: Int, points: Float) -> Float:
    counts = tiled_counts(problem.weights, TILE, budgets, points)
    return merge_by_mass(counts, problem.weights, TILE, budgets)


def _empty_dropped_renormalised(problem: Problem, budgets: Int, points: Float) -> Float:
    merged = _empty_dropped(problem, budgets, points)
    return np.asarray(merged / merged.sum(axis=-1, keepdims=True))


def _prop_mean(problem: Problem, rows: Rows) -> Float:
    """E m^, by cells of the offset."""
    budgets = largest_remainder(tile_masses(problem.weights, TILE), problem.samples)
    points, probability = one_uniform(tile_places(problem.weights, TILE, budgets), len(budgets))
    return np.asarray(probability @ rows(problem, budgets, points) @ problem.values)


def _bias(context: Context, rows: Rows, predicted: Predicted) -> Measurement:
    parts = []
    for problem in problems(context):
        bias = predicted(problem.weights, problem.values, problem.samples, TILE)
        parts.append(largest_gap(_prop_mean(problem, rows), problem.law @ problem.values + bias))
    return combine(*parts)


def _two_tiles(context: Context) -> Measurement:
    """0.4 (mu_1 - mu_2) at masses 0.6, 0.4 and S = 1, 0.2 (mu_2 - mu_1) at 0.7, 0.3 and S = 2."""
    means = context.generator().standard_normal((2, 3))
    seen = [prop_bias(np.array(w), means, s, 1) for w, s in (((0.6, 0.4), 1), ((0.7, 0.3), 2))]
    return largest_gap(seen, [0.4 * (means[0] - means[1]), 0.2 * (means[1] - means[0])])


def _bias_check(context: Context) -> Measurement:
    return combine(_bias(context, _over_samples, prop_bias), _two_tiles(context))


def _no_bias(weights: Float, values: Float, samples: int, tile_len: int) -> Float:
    return np.zeros(values.shape[-1])


def _bias_control(context: Context) -> Measurement:
    wrong = (_over_samples, _empty_dropped, _empty_dropped_renormalised)
    return mildest(*(_bias(context, rows, _no_bias) for rows in wrong))


def _rounding_bounds(masses: Float, means: Float, samples: int, factor: float) -> Measurement:
    moved = rounded_mass(masses, samples)
    apart = np.linalg.norm(means[:, None] - means, axis=-1).max()
    bias = float(np.linalg.norm(prop_bias(masses, means, samples, 1)))
    limits = np.array([moved * apart, rounded_mass_bound(len(masses), samples)])
    return inequality([bias, moved], factor * limits + ROUNDING)


def _bias_bound(context: Context, factor: float) -> Measurement:
    """Random masses and means, and eight equal tiles of which four are rounded up, where all is attained."""
    rng, parts = context.generator(), []
    for _ in range(context.samples(200)):
        tiles, samples = (int(n) for n in rng.integers(1, [60, 200]))
        masses, means = rng.dirichlet(np.full(tiles, 0.5)), rng.standard_normal((tiles, 3))
        parts.append(_rounding_bounds(masses, means, samples, factor))
    halves = _rounding_bounds(np.full(8, 1 / 8), np.repeat([[-1.0], [1.0]], 4, axis=0), 4, factor)
    return combine(*parts, halves)


def bitonic_budgets(masses: Float, samples: int) -> Int:
    """`largest_remainder` with the released sort: a network on 2^k >= T slots of which only T are stored."""
    (budgets, fractions), count = split_quotas(masses, samples), len(masses)
    ascending = np.argsort(fractions, kind="stable")
    size = 1 << (count - 1).bit_length()
    slots = np.full(size, -1)  # of a tile its rank, -1 for none
    slots[ascending] = np.arange(count)
    width = 2
    while width <= size:
        step = width // 2
        while step:
            low = np.flatnonzero((np.arange(size) & step) == 0)
            larger, smaller = np.maximum(slots[low], slots[low + step]), np.minimum(slots[low], slots[low + step])
            falls = (low & width) == 0
            slots[low], slots[low + step] = np.where(falls, [larger, smaller], [smaller, larger])
            slots[count:] = -1
            step //= 2
        width *= 2
    raised = slots[: samples - budgets.sum()]
    budgets[ascending[raised[raised >= 0]]] += 1
    return budgets


def _by_definition(masses: Float, samples: int) -> list[int]:
    """Budgets in exact arithmetic: quotas as integers over the largest denominator, which is a power of two."""
    ratios = [mass.as_integer_ratio() for mass in masses.tolist()]
    under = max(below for _, below in ratios)
    quotas = [divmod(samples * above * (under // below), under) for above, below in ratios]
    budgets = [whole for whole, _ in quotas]
    ascending = sorted(range(len(quotas)), key=lambda tile: quotas[tile][1])
    for tile in ascending[len(quotas) - (samples - sum(budgets)) :]:
        budgets[tile] += 1
    return budgets


def _remainders(context: Context, budgets: Budgets) -> Measurement:
    """Numbers of tiles from 1 to 300 with a budget that is wrong, for random masses and for equal ones."""
    rng, wrong = context.generator(), set()
    for tiles in range(1, 301):
        for masses in (rng.dirichlet(np.full(tiles, 0.3)), np.full(tiles, 1 / tiles)):
            for samples in (7, 128):
                if budgets(masses, samples).tolist() != _by_definition(masses, samples):
                    wrong.add(tiles)
    return Measurement(len(wrong), 0)


CLAIMS = (
    Claim(
        id="N8.bias",
        title="Largest-remainder budgets are biased",
        statement="Budgets S_t rounded by largest remainders and merged as counts over S give the mean "
        "sum_t (S_t/S) mu_t: a bias of sum_t (S_t/S - w_t) mu_t.",
        source="own proof; the paper calls this sampler unbiased",
        kind="identity",
        wrong="no bias; a merge by mass with the empty tiles dropped, renormalised or not, called unbiased",
        check=_bias_check,
        control=_bias_control,
    ),
    Claim(
        id="N8.bound",
        title="Size of that bias",
        statement="The bias of largest-remainder budgets is at most TV max |mu_s - mu_t|, with "
        "TV = sum_t |S_t/S - w_t| / 2, and TV <= T/(4S).",
        source="own proof",
        kind="inequality",
        wrong="both bounds halved",
        check=partial(_bias_bound, factor=1.0),
        control=partial(_bias_bound, factor=0.5),
    ),
    Claim(
        id="N10",
        title="Largest remainders",
        statement="For every number of tiles the budgets add up to S, and the tiles rounded up are those of the "
        "largest fractions, the later of equal ones.",
        source="definition of the budgets",
        kind="identity",
        wrong="a bitonic sort on a power of two of slots of which only T are stored, as released",
        check=partial(_remainders, budgets=largest_remainder),
        control=partial(_remainders, budgets=bitonic_budgets),
    ),
)
