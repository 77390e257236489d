"""N13: how often a sampled average strays, against bounds given the scores."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.stats import binom

from socket_theory.bounds.sampling import SamplingSpread, plain_spread
from socket_theory.bounds.santa import (
    bennett_failure,
    flash_spread,
    prop_spread,
    sampling_failure,
    stratified_spread,
)
from socket_theory.claims.engine import Claim, Context, Measurement, combine, inequality
from socket_theory.claims.santa_problems import ROUNDING, Float, Problem, alternating, mildest, softmax_weights
from socket_theory.claims.stats import failure_rate, tightness
from socket_theory.tile_sampling import flash_budgets, largest_remainder, merge_by_mass, tile_masses, tiled_counts
from socket_theory.value_sampling import iid_counts, stratified_counts, systematic_counts
from socket_theory.value_sampling_moments import prop_bias

Bound = Callable[[Float, int, SamplingSpread], Float]
Draw = Callable[[Problem, np.random.Generator, int], Float]
DELTA, TILE = 0.05, 4
SMALLEST = 1e-200  # of the probabilities compared
RARE = (1e-4, 1e-3, 0.02, 0.1, 0.3, 0.5)
CENTRED = np.array([[0.5], [-0.5]])  # at distance 1 from each other, so nearly 1 from the mean of a rare one


def _two_points(context: Context, bound: Bound) -> Measurement:
    """P(|m^ - mu| >= t) of two rows, by the binomial, at every t that occurs and a bound below 1 says something about.

    The tightness is that of the first pair.
    """
    parts = []
    for samples, rare in ((64, 0.3), *((s, p) for s in (1, 8, 64, 512) for p in RARE)):
        spread, law = plain_spread(np.array([rare, 1 - rare]), CENTRED), binom(samples, rare)
        deviation = np.abs(np.arange(samples + 1) / samples - rare)
        deviation = deviation[deviation > ROUNDING]
        above = np.ceil(samples * (rare + deviation) - 1e-9) - 1
        truth = law.sf(above) + law.cdf(np.floor(samples * (rare - deviation) + 1e-9))
        promised = bound(deviation, samples, spread)
        told = (promised < 1) & (truth > SMALLEST)
        if told.any():
            parts.append(inequality(truth[told], np.maximum(promised[told], SMALLEST)))
    return combine(*parts)


def _bennett_below_bernstein(context: Context) -> Measurement:
    spreads = [plain_spread(np.array([rare, 1 - rare]), CENTRED) for rare in RARE]
    t = np.linspace(0.2, 1, 50)
    pairs = [(bennett_failure(t, 128, spread), sampling_failure(t, 128, spread)) for spread in spreads]
    return combine(*(inequality(bennett, bernstein) for bennett, bernstein in pairs))


def _without_linear_term(t: Float, samples: int, spread: SamplingSpread) -> Float:
    return np.asarray(np.minimum(1, 2 * np.exp(-samples * t**2 / (2 * spread.variance))))


def _one_sided(t: Float, samples: int, spread: SamplingSpread) -> Float:
    return np.asarray(np.exp(-samples * t**2 / (2 * (spread.variance + spread.radius * t / 3))))


def _samples_squared(t: Float, samples: int, spread: SamplingSpread) -> Float:
    return sampling_failure(t, samples**2, spread)


def _largest_norm(t: Float, samples: int, spread: SamplingSpread) -> Float:
    return sampling_failure(t, samples, SamplingSpread(float(np.abs(CENTRED).max()), spread.variance))


def _two_points_check(context: Context) -> Measurement:
    return combine(
        _two_points(context, sampling_failure),
        _two_points(context, bennett_failure),
        _bennett_below_bernstein(context),
    )


def _two_points_control(context: Context) -> Measurement:
    wrong = (_without_linear_term, _one_sided, _samples_squared, _largest_norm)
    return mildest(*(_two_points(context, bound) for bound in wrong))


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
        id="N13.two-points",
        title="B.1 and Bennett's form, exactly",
        statement="P(|m-hat - mu| >= t) <= 2 exp(-(S v/L^2) H(Lt/v)) <= 2 exp(-S t^2 / (2 (v + L t/3))) for the mean "
        "m-hat of S iid draws, v = tr Sigma, L = max_j |v_j - mu|, H(x) = (1+x) ln(1+x) - x.",
        source="Lee et al. 2026, B.1; Pinelis 1994",
        kind="inequality",
        wrong="no term L t/3; prefactor 1; S^2 for S; the largest |v_j| for L",
        check=_two_points_check,
        control=_two_points_control,
    ),
    Claim(
        id="N13.draws",
        title="B.1 for strata and tiles",
        statement="The same tail holds for strata with the mean of their variances and the largest distance of a row "
        "from the mean of a stratum it is in, and for tiles with offsets of their own, about the mean of their merge.",
        source="Pinelis 1994 for independent terms of different laws",
        kind="tail",
        wrong="the tail of iid draws for systematic ones; one offset for all tiles",
        check=_draws,
        control=_draws_control,
    ),
)
