"""N13: how often a sampled average strays, against bounds given the scores."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.stats import binom

from socket_theory.bounds.importance import SamplingSpread, plain_spread
from socket_theory.core.claim import Claim, Context, Measurement, combine
from socket_theory.core.thresholds import failure_rate, tightness
from socket_theory.santa.bounds import bennett_failure, flash_spread, prop_spread, sampling_failure, stratified_spread
from socket_theory.santa.claims.problems import (
    ROUNDING,
    Float,
    Problem,
    alternating,
    drawn_rows,
    independent_uniforms,
    largest_gap,
    mildest,
    softmax_weights,
)
from socket_theory.santa.claims.two_points import CENTRED, two_points
from socket_theory.santa.estimator import Santa
from socket_theory.santa.law import prop_bias
from socket_theory.santa.samplers import iid_counts, stratified_counts, systematic_counts
from socket_theory.santa.tiles import flash_budgets, largest_remainder, merge_by_mass, tile_masses, tiled_counts

Draw = Callable[[Problem, np.random.Generator, int], Float]
DELTA, TILE = 0.05, 4


def _iid(problem: Problem, rng: np.random.Generator, trials: int) -> Float:
    return iid_counts(problem.weights, rng.random((trials, problem.samples))) / problem.samples


def _strata(problem: Problem, rng: np.random.Generator, trials: int) -> Float:
    return stratified_counts(problem.weights, rng.random((trials, problem.samples))) / problem.samples


def _flash(problem: Problem, rng: np.random.Generator, trials: int, own_offset: bool = True) -> Float:
    budgets = flash_budgets(-(-len(problem.weights) // TILE), problem.samples)
    offsets = rng.random((trials, len(budgets))) if own_offset else np.tile(rng.random((trials, 1)), len(budgets))
    counts = tiled_counts(problem.weights, TILE, budgets, offsets)
    return merge_by_mass(counts, problem.weights, TILE, budgets)


def _prop(problem: Problem, rng: np.random.Generator, trials: int) -> Float:
    budgets = largest_remainder(tile_masses(problem.weights, TILE), problem.samples)
    offsets = rng.random((trials, len(budgets)))
    return tiled_counts(problem.weights, TILE, budgets, offsets) / problem.samples


def _systematic(problem: Problem, rng: np.random.Generator, trials: int) -> Float:
    return systematic_counts(problem.weights, problem.samples, rng.random(trials)) / problem.samples


def _misses(
    context: Context, problem: Problem, draw: Draw, spread: SamplingSpread, count: int, mean: Float
) -> Measurement:
    """How often the average is further from its mean than Bernstein's radius at delta = 0.05."""
    trials, bound = context.samples(1000), spread.bernstein(DELTA, count)
    errors = np.linalg.norm(draw(problem, context.generator(), trials) @ problem.values - mean, axis=-1)
    failures = int(np.count_nonzero(errors > bound * (1 + ROUNDING)))
    return failure_rate(failures, trials, DELTA, context.level(), tightness(bound, errors, DELTA))


def _pairs(rare: float, samples: int) -> tuple[Float, Float]:
    """The two points over and over, each pair with the same mass: a stratum or a tile each, hit with probability p."""
    return np.tile([rare, 1 - rare], samples), np.tile(CENTRED, (samples, 1))


def _uneven_pairs(rare: float, samples: int) -> tuple[Float, Float]:
    """2S pairs, of which S have 11/9 of the mass of the others, so that one draw is rounded to each of them."""
    return np.tile(np.outer([1.1, 0.9], [rare, 1 - rare]).ravel(), samples), np.tile(CENTRED, (2 * samples, 1))


def _strata_spread(rare: float, samples: int) -> tuple[SamplingSpread, int]:
    return stratified_spread(*_pairs(rare, samples), samples), samples


def _flash_spread(rare: float, samples: int) -> tuple[SamplingSpread, int]:
    return flash_spread(*_pairs(rare, samples), samples, 2), 1


def _prop_spread(rare: float, samples: int) -> tuple[SamplingSpread, int]:
    return prop_spread(*_uneven_pairs(rare, samples), samples, 2), 1


def _binomial_law() -> Measurement:
    """The law of the share of the first point, over all outcomes of four draws of the estimator: the binomial."""
    samples, rare, parts = 4, 0.3, []
    strata, flash, prop = Santa(samples, "stratified"), Santa(samples, "flash", 2), Santa(samples, "biased_prop", 2)
    cases = (strata, rare, _pairs), (flash, 1 - rare, _pairs), (prop, 1 - rare, _uneven_pairs)
    for method, place, pairs in cases:
        weights = pairs(rare, samples)[0]
        points, probability = independent_uniforms([[place]] * method.num_uniforms(len(weights)))
        hits = np.rint(samples * drawn_rows(method, weights, points)[:, ::2].sum(axis=1)).astype(int)
        parts.append(largest_gap(np.bincount(hits, probability), binom(samples, rare).pmf(np.arange(samples + 1))))
    return combine(*parts)


def _extremal() -> Measurement:
    """Both bounds where one draw in each stratum or tile makes the law binomial."""
    spreads = (_strata_spread, _flash_spread, _prop_spread)
    return combine(*(two_points(bound, spread) for spread in spreads for bound in (sampling_failure, bennett_failure)))


def _draws(context: Context) -> Measurement:
    """iid draws, whose tightness is printed, strata, flash and prop, the last about its own mean; and flash's worst."""
    rng = context.generator()
    problem = Problem(softmax_weights(rng, 30), rng.standard_normal((30, 3)), 24)
    weights, values, samples = problem.weights, problem.values, problem.samples
    plain, strata, flash, prop, worst_case = context.split("iid", "strata", "flash", "prop", "alternating")
    output = problem.law @ values
    biased = output + prop_bias(weights, values, samples, TILE)
    return combine(
        _misses(plain, problem, _iid, plain_spread(weights, values), samples, output),
        _misses(strata, problem, _strata, stratified_spread(weights, values, samples), samples, output),
        _misses(flash, problem, _flash, flash_spread(weights, values, samples, TILE), 1, output),
        _misses(prop, problem, _prop, prop_spread(weights, values, samples, TILE), 1, biased),
        _flash_on_alternating(worst_case, _flash),
        _binomial_law(),
        _extremal(),
    )


def _flash_on_alternating(context: Context, draw: Draw) -> Measurement:
    """64 tiles of 1, -1, 1, -1 with two draws each: every tile is off by its whole mass."""
    problem = alternating(128)
    spread = flash_spread(problem.weights, problem.values, problem.samples, TILE)
    return _misses(context, problem, draw, spread, 1, np.zeros(1))


def _draws_control(context: Context) -> Measurement:
    part, problem = context.split("iid", "strata", "flash", "prop", "alternating")[-1], alternating(64)
    spread = plain_spread(problem.weights, problem.values)
    return mildest(
        _misses(part, problem, _systematic, spread, problem.samples, np.zeros(1)),
        _flash_on_alternating(part, partial(_flash, own_offset=False)),
    )


CLAIMS = (
    Claim(
        id="N13.draws",
        title="B.1 for strata and tiles",
        statement="The same tails hold for strata with the mean of their variances and the largest distance of a row "
        "from the mean of a stratum it is in, and for tiles with offsets of their own, about the mean of their merge.",
        source="Pinelis 1994 for independent terms of different laws",
        kind="tail",
        wrong="the tail of iid draws for systematic ones; one offset for all tiles",
        check=_draws,
        control=_draws_control,
    ),
)
