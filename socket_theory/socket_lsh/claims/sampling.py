"""S10: the sampling estimator, plain and value-aware, given the tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.claim import Claim, Context, Measurement, combine, worst
from socket_theory.core.draws import sample_mean
from socket_theory.core.hashing import Planes, apply_query_map, hash_keys, project_query, round_to_bfloat16
from socket_theory.core.rng import uniform
from socket_theory.core.thresholds import bennett_radius
from socket_theory.socket_lsh.collisions import soft_collision_scores
from socket_theory.socket_lsh.sampling import SocketSampling

Float = NDArray[np.float64]
NUM_PLANES, NUM_TABLES, TEMPERATURE, HEAD_DIM = 3, 20, 0.4, 8
HEADS_AT_ONCE = 2000


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


def random_instance(context: Context) -> Instance:
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
    instance, samples, trials = random_instance(context), 64, context.samples(400)
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


def _least_variance(context: Context, value_aware: bool) -> Measurement:
    """E|t|^2 of the law against 400 other importance laws, and the estimator's squared error against it.

    Norms rounded to bfloat16 cost a factor of at most 1 + 2^-16 (Kantorovich's inequality).
    """
    instance, trials = random_instance(context), context.samples(1500)
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
