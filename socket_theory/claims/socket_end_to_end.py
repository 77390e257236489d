"""S12: the whole error of the sampling estimator against angular attention, term by term."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from socket_theory.bounds.end_to_end import ErrorTerms, end_to_end
from socket_theory.bounds.finite_tables import chebyshev_radius, plug_in_radius, weight_bound
from socket_theory.bounds.sampling import plain_spread
from socket_theory.bounds.temperature import output_bias_bound
from socket_theory.claims.engine import Claim, Context, Measurement, combine
from socket_theory.claims.socket_bias import Problem, length, opposite_problem, random_problem
from socket_theory.claims.stats import failure_rate, tightness
from socket_theory.collisions import log_soft_collision_scores
from socket_theory.estimators.socket_sampling import SocketSampling
from socket_theory.hashing import Planes, apply_query_map, hash_keys, project_query
from socket_theory.rng import Key

Float = NDArray[np.float64]
TableForm = Callable[[Problem, float, int, float], float]
DELTA = 0.05
_TERMS = ("sampling", "finite-table", "temperature", "total")


def _plug_in(problem: Problem, delta: float, count: int, mass: float) -> float:
    bound, radius = weight_bound(problem.kernel, len(problem.keys)), problem.value_radius(problem.soft_target)
    return float(plug_in_radius(delta, count, bound, radius, mass))


def _chebyshev(problem: Problem, delta: float, count: int, mass: float) -> float:
    return float(chebyshev_radius(delta, count, problem.second_moment, mass))


def _one_run(key: Key, problem: Problem, form: TableForm, count: int) -> tuple[ErrorTerms, Float]:
    """One set of `count` tables and `count` draws: the terms of the bound, and [4] the measured ones with their sum."""
    kernel, query, keys, values = problem.kernel, problem.query, problem.keys, problem.values
    planes = Planes(key.generator().standard_normal((count, kernel.num_planes, kernel.head_dim)))
    method = SocketSampling(kernel.num_planes, count, kernel.query_map, kernel.temperature, num_samples=count)
    cache = method.prepare(keys[None], values[None], planes=planes)
    drawn = method.attend(query[None], cache, key=key.fold_in("draws")).value[0]
    mapped = apply_query_map(project_query(query, planes), kernel.query_map, kernel.head_dim)
    weights = np.exp(log_soft_collision_scores(mapped, hash_keys(keys, planes), kernel.temperature))
    finite, spread = weights @ values / weights.sum(), plain_spread(weights, values)
    terms = end_to_end(
        DELTA,
        sampling=lambda delta: spread.bernstein(delta, count),
        finite_tables=lambda delta: form(problem, delta, count, float(weights.sum())),
        temperature=problem.bias_bound(output_bias_bound),
    )
    stages = (drawn, finite, problem.soft_target, problem.target)
    return terms, np.array([length(stages[i] - stages[j]) for i, j in ((0, 1), (1, 2), (2, 3), (0, 3))])


def _end_to_end(
    context: Context, problem: Problem, form: TableForm, count: int, trials: int, with_bias: bool = True
) -> Measurement:
    """How often |y_{tau,L,M} - y*| exceeds the sum of the terms, against delta; the terms are the details."""
    runs = [_one_run(key, problem, form, count) for key, _ in context.batches(trials, 1)]
    terms = np.array([(t.sampling, t.finite_tables, t.temperature) for t, _ in runs])
    measured = np.array([errors for _, errors in runs])
    bounds = terms.sum(axis=1) if with_bias else terms[:, :2].sum(axis=1)
    failures = int(np.count_nonzero(measured[:, 3] > bounds))
    seen = np.quantile(measured, 1 - DELTA, axis=0)
    detail = [
        (label, float(number))
        for name, bound, error in zip(_TERMS, [*terms.mean(axis=0), bounds.mean()], seen, strict=True)
        for label, number in ((f"{name} bound", bound), ("measured", error))
    ]
    result = failure_rate(failures, trials, DELTA, context.level(), tightness(bounds, measured[:, 3], DELTA))
    return replace(result, detail=tuple(detail))


def _end_to_end_check(context: Context, form: TableForm) -> Measurement:
    random, opposite = context.split("random", "opposite keys")
    whole = _end_to_end(random, random_problem(random), form, 400, random.samples(150))
    hot = _end_to_end(opposite, opposite_problem(opposite), form, 20_000, 16)
    return combine(whole, replace(hot, detail=()))


def _end_to_end_control(context: Context, form: TableForm) -> Measurement:
    opposite = context.split("random", "opposite keys")[1]
    return _end_to_end(opposite, opposite_problem(opposite), form, 20_000, 16, with_bias=False)


CLAIMS = (
    Claim(
        id="S12.plug-in",
        title="End to end, plug-in",
        statement="With probability 1 - delta, |y_{tau,L,M} - y*| is at most the sampling term (S10, Bernstein) plus "
        "the finite-table term (S9, plug-in) plus the temperature term (S11).",
        source="own proof, in the form of the paper's Theorem 3; triangle inequality, delta split in two",
        kind="tail",
        wrong="the temperature term dropped, on keys k and -k at tau = 3",
        check=partial(_end_to_end_check, form=_plug_in),
        control=partial(_end_to_end_control, form=_plug_in),
    ),
    Claim(
        id="S12.moment",
        title="End to end, Chebyshev",
        statement="The same with the finite-table term of S9's second-moment form, from pairwise quadratures: the "
        "decomposition that is small enough to be of use.",
        source="own proof; S9's Chebyshev form, triangle inequality, delta split in two",
        kind="tail",
        wrong="the temperature term dropped, on keys k and -k at tau = 3",
        check=partial(_end_to_end_check, form=_chebyshev),
        control=partial(_end_to_end_control, form=_chebyshev),
    ),
)
