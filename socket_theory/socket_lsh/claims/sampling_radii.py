"""S10: how far the mean of draws strays from the output of the tables, against Hoeffding's and Bernstein's radius."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from socket_theory.bounds.importance import SamplingSpread, plain_spread, value_aware_spread
from socket_theory.core.claim import Claim, Context, Measurement, combine, mildest
from socket_theory.core.draws import draw_tokens
from socket_theory.core.thresholds import failure_rate, tightness, trials_to_reject
from socket_theory.socket_lsh.claims.sampling import random_instance

Radius = Callable[[SamplingSpread, float, int], float]
DELTA, SMALL_DELTA, TRIALS_AT_ONCE = 0.05, 1e-3, 20_000
SIGNS, NO_ROOT_2 = 64, 3.7e-3  # draws of fair signs, and the binomial miss rate of a radius without its sqrt 2
RARE, RARE_DRAWS = 1 / 128, 6  # the share of a token that is rarely drawn, and draws
PARTS = "plain", "value-aware", "signs", "rare"


def _deviation(context: Context, value_aware: bool, radius: Radius) -> Measurement:
    """How often |y_M - y| exceeds its radius, against delta."""
    instance, samples, trials = random_instance(context), 64, context.samples(1500)
    weights, values = instance.weights, instance.values
    spread = value_aware_spread(weights, values) if value_aware else plain_spread(weights, values)
    bound, target = radius(spread, DELTA, samples), weights @ values / weights.sum()
    errors = np.linalg.norm(instance.estimates(context, samples, trials, value_aware) - target, axis=-1)
    failures = int(np.count_nonzero(errors > bound))
    return failure_rate(failures, trials, DELTA, context.level(), tightness(bound, errors, DELTA))


def _two_tokens(context: Context, radius: Radius, share: float, samples: int, wrong: float) -> Measurement:
    """How often means of draws from values 1 and -1, the first with this share, exceed the radius at a small delta.

    By as many trials as it takes to reject one that is exceeded at the rate `wrong`.
    """
    weights, values = np.array([share, 1 - share]), np.array([[1.0], [-1.0]])
    bound = radius(plain_spread(weights, values), SMALL_DELTA, samples)
    trials, failures = context.samples(trials_to_reject(SMALL_DELTA, wrong, context.level())), 0
    for key, count in context.batches(trials, TRIALS_AT_ONCE):
        means = values[draw_tokens(weights, key.generator().random((count, samples))), 0].mean(axis=1)
        failures += int(np.count_nonzero(np.abs(means - (2 * share - 1)) > bound))
    return failure_rate(failures, trials, SMALL_DELTA, context.level())


def _fair_signs(context: Context, radius: Radius) -> Measurement:
    return _two_tokens(context, radius, 0.5, SIGNS, NO_ROOT_2)


def _rare_token(context: Context, radius: Radius) -> Measurement:
    return _two_tokens(context, radius, RARE, RARE_DRAWS, 1 - (1 - RARE) ** RARE_DRAWS)


def _rootless(spread: SamplingSpread, delta: float, samples: int, radius: Radius) -> float:
    return math.sqrt(0.5) * radius(spread, delta, samples)


def _mean_square_distance(spread: SamplingSpread, delta: float, samples: int) -> float:
    return replace(spread, radius=spread.variance).bernstein(delta, samples)


def _deviation_check(context: Context, radius: Radius) -> Measurement:
    plain, aware, signs, rare = context.split(*PARTS)
    drawn = _deviation(plain, False, radius), _deviation(aware, True, radius)
    return combine(*drawn, _fair_signs(signs, radius), _rare_token(rare, radius))


def _deviation_control(context: Context, radius: Radius, shorter: Radius | None = None) -> Measurement:
    *_, signs, rare = context.split(*PARTS)
    wrong = [_fair_signs(signs, partial(_rootless, radius=radius))]
    return mildest(*wrong, *([_rare_token(rare, shorter)] if shorter else []))


CLAIMS = (
    Claim(
        id="S10.hoeffding",
        title="Sampling: Hoeffding radius",
        statement="Given the tables, |y_{tau,L,M} - y_{tau,L}| <= D' sqrt(2 ln(2/delta)/M) with probability 1 - delta, "
        "D' the largest distance of an averaged term from y_{tau,L}.",
        source="Pinelis 1994, for iid centred vectors of bounded norm",
        kind="tail",
        wrong="sqrt 2 left out, on a mean of fair signs",
        check=partial(_deviation_check, radius=SamplingSpread.hoeffding),
        control=partial(_deviation_control, radius=SamplingSpread.hoeffding),
    ),
    Claim(
        id="S10.bernstein",
        title="Sampling: Bernstein radius",
        statement="Given the tables, P(|y_{tau,L,M} - y_{tau,L}| >= t) <= 2 exp(-M t^2 / (2 (tr Cov + D' t/3))), "
        "D' = max |v_i - y_{tau,L}| over the tokens that can be drawn.",
        source="Pinelis 1994, for iid centred vectors of bounded norm and variance",
        kind="tail",
        wrong="sqrt 2 left out, on a mean of fair signs; the mean squared distance as D', on a rare token",
        check=partial(_deviation_check, radius=SamplingSpread.bernstein),
        control=partial(_deviation_control, radius=SamplingSpread.bernstein, shorter=_mean_square_distance),
    ),
)
