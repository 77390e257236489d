"""S10: the sampling estimator, plain and value-aware, given the tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from socket_theory.bounds.importance import SamplingSpread, plain_spread, value_aware_spread
from socket_theory.core.claim import Claim, Context, Measurement, combine, mildest, worst
from socket_theory.core.draws import draw_tokens, sample_mean
from socket_theory.core.hashing import Planes, apply_query_map, hash_keys, project_query, round_to_bfloat16
from socket_theory.core.rng import uniform
from socket_theory.core.thresholds import bennett_radius, failure_rate, tightness, trials_to_reject
from socket_theory.socket_lsh.collisions import soft_collision_scores
from socket_theory.socket_lsh.sampling import SocketSampling

Float = NDArray[np.float64]
NUM_PLANES, NUM_TABLES, TEMPERATURE, HEAD_DIM = 3, 20, 0.4, 8
DELTA = 0.05
HEADS_AT_ONCE, TRIALS_AT_ONCE = 2000, 20_000
DEVIATIONS = "plain", "value-aware", "signs", "rare"
RARE, RARE_DRAWS = 1 / 128, 6  # the law of a token that is rarely drawn, and draws
SIGNS, SIGNS_DELTA, NO_ROOT_2 = 64, 1e-3, 3.7e-3  # draws, and the binomial miss rate of a radius without its sqrt 2


@dataclass(frozen=True)
class Instance:
    """One query, its keys and values, and one sample of tables: y_{tau,L} is known."""

    query: Float
    keys: Float
    values: Float
    planes: Planes

    @property
    def weights(self) -> Float:
        """w-bar [N]."""
        mapped = apply_query_map(project_query(self.query, self.planes), "tanh", HEAD_DIM)
        return soft_collision_scores(mapped, hash_keys(self.keys, self.planes), TEMPERATURE)

    @property
    def norms(self) -> Float:
        """|v| as the cache stores it; the estimator weighs and divides by the same rounded norm."""
        return round_to_bfloat16(np.linalg.norm(self.values, axis=-1))

    def law(self, value_aware: bool) -> tuple[Float, Float]:
        """What is drawn with which probability: p [N], and the term t [N, E] that is averaged; sum p t = y."""
        mass = self.weights * self.norms if value_aware else self.weights
        factor = mass.sum() / self.weights.sum() / self.norms if value_aware else np.ones(len(mass))
        return mass / mass.sum(), factor[:, None] * self.values

    def estimates(self, context: Context, samples: int, trials: int, value_aware: bool) -> Float:
        """`trials` independent outputs of SocketSampling, [trials, E]: as many heads with the same query."""
        method = SocketSampling(NUM_PLANES, NUM_TABLES, "tanh", TEMPERATURE, samples, value_aware)
        cache = method.prepare(self.keys[None], self.values[None], sample=self.planes)
        batches = context.batches(trials, HEADS_AT_ONCE)
        return np.concatenate(
            [method.attend(np.tile(self.query, (heads, 1)), cache, key=key).value for key, heads in batches]
        )


Estimates = Callable[[Instance, Context, int, int], Float]
Radius = Callable[[SamplingSpread, float, int], float]


def _random(context: Context) -> Instance:
    """40 keys, values whose lengths spread over two orders of magnitude."""
    rng = context.generator()
    planes = Planes(rng.standard_normal((NUM_TABLES, NUM_PLANES, HEAD_DIM)))
    values = rng.standard_normal((40, 3)) * np.exp(rng.uniform(-2, 2, size=(40, 1)))
    query, keys = np.sqrt(2) * rng.standard_normal(HEAD_DIM), rng.standard_normal((40, HEAD_DIM))
    return Instance(query, keys, values, planes)


def _value_aware_draws_plain_mean(instance: Instance, context: Context, samples: int, trials: int) -> Float:
    points = uniform(context.key.fold_in("points"), np.arange(samples * trials)).reshape(trials, samples)
    return np.stack([sample_mean(instance.weights * instance.norms, instance.values, row)[0] for row in points])


def _unbiased(context: Context, estimate: Estimates, value_aware: bool) -> Measurement:
    instance, samples, trials = _random(context), 64, context.samples(400)
    law, terms = instance.law(value_aware)
    target = law @ terms
    variance, bound = law @ (terms - target) ** 2, np.max(np.abs(terms - target), axis=0)
    radius = bennett_radius(variance, bound, samples * trials, context.level(len(target)))
    return worst(np.abs(estimate(instance, context, samples, trials).mean(axis=0) - target), radius)


def _unbiased_check(context: Context) -> Measurement:
    plain, aware = context.split("plain", "value-aware")
    return combine(
        _unbiased(plain, partial(Instance.estimates, value_aware=False), False),
        _unbiased(aware, partial(Instance.estimates, value_aware=True), True),
    )


def _unbiased_control(context: Context) -> Measurement:
    return _unbiased(context.split("plain", "value-aware")[1], _value_aware_draws_plain_mean, True)


def _deviation(context: Context, value_aware: bool, radius: Radius) -> Measurement:
    """How often |y_M - y| exceeds its radius, against delta."""
    instance, samples, trials = _random(context), 64, context.samples(1500)
    weights, values = instance.weights, instance.values
    spread = value_aware_spread(weights, values) if value_aware else plain_spread(weights, values)
    bound, target = radius(spread, DELTA, samples), weights @ values / weights.sum()
    errors = np.linalg.norm(instance.estimates(context, samples, trials, value_aware) - target, axis=-1)
    failures = int(np.count_nonzero(errors > bound))
    return failure_rate(failures, trials, DELTA, context.level(), tightness(bound, errors, DELTA))


def _fair_signs(context: Context, radius: Radius, factor: float) -> Measurement:
    """How often the mean of draws from two values +1 and -1 of equal weight exceeds `factor` times the radius."""
    weights, values = np.ones(2), np.array([[1.0], [-1.0]])
    bound = factor * radius(plain_spread(weights, values), SIGNS_DELTA, SIGNS)
    trials, failures = context.samples(trials_to_reject(SIGNS_DELTA, NO_ROOT_2, context.level())), 0
    for key, count in context.batches(trials, TRIALS_AT_ONCE):
        means = values[draw_tokens(weights, key.generator().random((count, SIGNS))), 0].mean(axis=1)
        failures += int(np.count_nonzero(np.abs(means) > bound))
    return failure_rate(failures, trials, SIGNS_DELTA, context.level())


def _rare_token(context: Context, radius: Radius) -> Measurement:
    """How often draws of which one in 128 is at a distance of nearly 1 exceed the radius, the others being near y."""
    weights, values = np.array([RARE, 1 - RARE]), np.array([[1.0], [0.0]])
    bound = radius(plain_spread(weights, values), SIGNS_DELTA, RARE_DRAWS)
    trials = context.samples(trials_to_reject(SIGNS_DELTA, 1 - (1 - RARE) ** RARE_DRAWS, context.level()))
    drawn = values[draw_tokens(weights, context.generator().random((trials, RARE_DRAWS))), 0]
    failures = int(np.count_nonzero(np.abs(drawn.mean(axis=1) - RARE) > bound))
    return failure_rate(failures, trials, SIGNS_DELTA, context.level())


def _mean_square_distance(spread: SamplingSpread, delta: float, samples: int) -> float:
    return replace(spread, radius=spread.variance).bernstein(delta, samples)


def _deviation_check(context: Context, radius: Radius) -> Measurement:
    plain, aware, signs, rare = context.split(*DEVIATIONS)
    drawn = _deviation(plain, False, radius), _deviation(aware, True, radius)
    return combine(*drawn, _fair_signs(signs, radius, 1.0), _rare_token(rare, radius))


def _deviation_control(context: Context, radius: Radius, shorter: Radius | None = None) -> Measurement:
    *_, signs, rare = context.split(*DEVIATIONS)
    return mildest(_fair_signs(signs, radius, 0.5**0.5), *([_rare_token(rare, shorter)] if shorter else []))


def _least_variance(context: Context, value_aware: bool) -> Measurement:
    """E|t|^2 of the law against 400 other importance laws, and the estimator's squared error against it.

    Norms rounded to bfloat16 cost a factor of at most 1 + 2^-16 (Kantorovich's inequality).
    """
    instance, trials = _random(context), context.samples(1500)
    law, terms = instance.law(value_aware)
    weights = instance.weights / instance.weights.sum()
    others = context.key.fold_in("rivals").generator().dirichlet(np.ones(len(weights)), size=200)
    rivals = np.vstack([weights, others, 0.99 * instance.law(True)[0] + 0.01 * others])
    least = ((weights * np.linalg.norm(instance.values, axis=-1)) ** 2 / rivals).sum(axis=1)
    errors = np.sum((terms - law @ terms) ** 2, axis=-1)
    variance = law @ errors
    measured = np.sum((instance.estimates(context, 1, trials, value_aware) - law @ terms) ** 2, axis=-1).mean()
    spread = (np.max(errors) - variance) * variance  # Bhatia-Davis, for squares between 0 and the largest
    return combine(
        worst(law @ np.sum(terms**2, axis=-1), least * (1 + 2.0**-16)),
        worst(abs(measured - variance), bennett_radius(spread, np.max(errors), trials, context.level())),
    )


CLAIMS = (
    Claim(
        id="S10.unbiased",
        title="Sampling: no bias",
        statement="Given the tables, the mean of v_J over draws J ~ w-bar, and S/Z-bar times the mean of v_J/|v_J| "
        "over draws J ~ w-bar |v| with S = sum w-bar |v|, both have expectation y_{tau,L}.",
        source="own proof; importance sampling",
        kind="mean",
        wrong="value-aware draws with plain averaging, values of unequal length",
        check=_unbiased_check,
        control=_unbiased_control,
    ),
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
    Claim(
        id="S10.value-aware",
        title="Sampling: least variance",
        statement="Among iid importance laws without a control variate, drawing in proportion to w-bar |v| has the "
        "least trace variance, (S/Z-bar)^2 - |y_{tau,L}|^2.",
        source="own proof; Cauchy-Schwarz",
        kind="inequality",
        wrong="draws in proportion to w-bar alone called the least",
        check=partial(_least_variance, value_aware=True),
        control=partial(_least_variance, value_aware=False),
    ),
)
