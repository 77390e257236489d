"""S12: the whole error of the sampling estimator against angular attention, term by term."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from socket_theory.bounds.end_to_end import ErrorTerms, end_to_end
from socket_theory.bounds.importance import plain_spread
from socket_theory.bounds.ratio import chebyshev_radius, hoeffding_ratio_radius, plug_in_radius
from socket_theory.bounds.residual_range import residual_range
from socket_theory.core.claim import Claim, Context, Measurement, combine, worst
from socket_theory.core.hashing import Planes, apply_query_map, hash_keys, project_query
from socket_theory.core.rng import Key
from socket_theory.core.thresholds import failure_rate, tightness
from socket_theory.socket_lsh.bounds.temperature import output_bias_bound
from socket_theory.socket_lsh.bounds.weight_range import weight_bound
from socket_theory.socket_lsh.claims.bias import Problem, length, opposite_problem, random_problem
from socket_theory.socket_lsh.collisions import log_soft_collision_scores
from socket_theory.socket_lsh.sampling import SocketSampling

Float = NDArray[np.float64]
Radius = Callable[[Problem, float, int, float], float]
DELTA, ROUNDING = 0.05, 1e-12
_TERMS = ("sampling", "finite-table", "temperature", "total")


@dataclass(frozen=True)
class Form:
    """Which form of S9 is used, how many random events it spends delta on, and whether tokens are drawn at all."""

    radius: Radius
    events: int = 1
    draws: bool = True
    tables: int = 400
    with_bias: bool = True

    @property
    def shares(self) -> tuple[float, float]:
        """The parts of delta of the sampling and the finite-table term."""
        part = DELTA / (self.events + self.draws)
        return part, part * self.events


def _plug_in(problem: Problem, delta: float, count: int, mass: float) -> float:
    return float(plug_in_radius(delta, count, residual_range(problem.kernel.weight_range(), problem.residuals), mass))


def _chebyshev(problem: Problem, delta: float, count: int, mass: float) -> float:
    return float(chebyshev_radius(delta, count, problem.second_moment, mass))


def _hoeffding(problem: Problem, delta: float, count: int, _: float) -> float:
    bound, radius = weight_bound(problem.kernel, len(problem.keys)), problem.value_radius(problem.soft_target)
    return hoeffding_ratio_radius(delta, count, bound, radius, float(problem.kernel_values[0].sum()))


def _one_run(key: Key, problem: Problem, form: Form, count: int) -> tuple[ErrorTerms, Float]:
    """One set of `count` tables and `count` draws: the terms of the bound, and [4] the measured ones with their sum."""
    kernel, query, keys, values = problem.kernel, problem.query, problem.keys, problem.values
    planes = Planes(key.generator().standard_normal((count, kernel.num_planes, kernel.head_dim)))
    method = SocketSampling(kernel.num_planes, count, kernel.query_map, kernel.temperature, num_samples=count)
    cache = method.prepare(keys[None], values[None], sample=planes)
    mapped = apply_query_map(project_query(query, planes), kernel.query_map, kernel.head_dim)
    weights = np.exp(log_soft_collision_scores(mapped, hash_keys(keys, planes), kernel.temperature))
    finite, spread = weights @ values / weights.sum(), plain_spread(weights, values)
    drawn = method.attend(query[None], cache, key=key.fold_in("draws")).value[0] if form.draws else finite
    terms = end_to_end(
        DELTA,
        sampling=(lambda delta: spread.bernstein(delta, count)) if form.draws else None,
        finite_tables=lambda delta: form.radius(problem, delta, count, float(weights.sum())),
        temperature=problem.bias_bound(output_bias_bound) if form.with_bias else 0.0,
        table_events=form.events,
    )
    stages = (drawn, finite, problem.soft_target, problem.target)
    return terms, np.array([length(stages[i] - stages[j]) for i, j in ((0, 1), (1, 2), (2, 3), (0, 3))])


def _end_to_end(context: Context, problem: Problem, form: Form, count: int, trials: int) -> Measurement:
    """How often each error exceeds its term and the whole their sum, against delta; the terms are the details."""
    runs = [_one_run(key, problem, form, count) for key, _ in context.batches(trials, 1)]
    terms = np.array([(t.sampling, t.finite_tables, t.temperature, t.total) for t, _ in runs])
    measured = np.array([errors for _, errors in runs])
    missed, level = np.count_nonzero(measured > terms, axis=0), context.level(3)
    drawing, tables = (failure_rate(int(m), trials, d, level) for m, d in zip(missed, form.shares, strict=False))
    tight = tightness(terms[:, 3], measured[:, 3], DELTA)
    whole = failure_rate(int(missed[3]), trials, DELTA, level, tight)
    seen = np.quantile(measured, 1 - DELTA, axis=0)
    detail = [
        (label, float(number))
        for name, bound, error in zip(_TERMS, terms.mean(axis=0), seen, strict=True)
        for label, number in ((f"{name} bound", bound), ("measured", error))
    ]
    bias = worst(measured[:, 2], terms[:, 2] + ROUNDING)
    return replace(combine(whole, drawing, tables, bias), detail=tuple(detail))


def _end_to_end_check(context: Context, form: Form) -> Measurement:
    random, opposite = context.split("random", "opposite keys")
    whole = _end_to_end(random, random_problem(random), form, form.tables, random.samples(100))
    hot = _end_to_end(opposite, opposite_problem(opposite), form, 20_000, 16)
    return combine(whole, replace(hot, detail=()))


def _end_to_end_control(context: Context, form: Form) -> Measurement:
    opposite = context.split("random", "opposite keys")[1]
    return _end_to_end(opposite, opposite_problem(opposite), replace(form, with_bias=False), 20_000, 16)


CLAIMS = (
    Claim(
        id="S12.plug-in",
        title="End to end, plug-in",
        statement="With probability 1 - delta, |y_{tau,L,M} - y*| is at most the sampling term (S10, Bernstein) plus "
        "the finite-table term (S9, plug-in) plus the temperature term (S11).",
        source="own proof, in the form of the paper's Theorem 3; triangle inequality, delta split in two",
        kind="tail",
        wrong="the temperature term dropped, on keys k and -k at tau = 3",
        check=partial(_end_to_end_check, form=Form(_plug_in)),
        control=partial(_end_to_end_control, form=Form(_plug_in)),
    ),
    Claim(
        id="S12.moment",
        title="End to end, Chebyshev",
        statement="The same with the finite-table term of S9's second-moment form, from pairwise quadratures: the "
        "decomposition that is small enough to be of use.",
        source="own proof; S9's Chebyshev form, triangle inequality, delta split in two",
        kind="tail",
        wrong="the temperature term dropped, on keys k and -k at tau = 3",
        check=partial(_end_to_end_check, form=Form(_chebyshev)),
        control=partial(_end_to_end_control, form=Form(_chebyshev)),
    ),
    Claim(
        id="S12.hoeffding",
        title="End to end, Hoeffding",
        statement="The same with the finite-table term of S9's Hoeffding form, which needs Z_tau alone and enough "
        "tables, else it is infinite; delta is split in three, for the draws, the numerator and Z-bar.",
        source="own proof, in the form of the paper's Theorem 3; S9's Hoeffding form, triangle inequality",
        kind="tail",
        wrong="the temperature term dropped, on keys k and -k at tau = 3",
        check=partial(_end_to_end_check, form=Form(_hoeffding, events=2, tables=2000)),
        control=partial(_end_to_end_control, form=Form(_hoeffding, events=2)),
    ),
    Claim(
        id="S12.tables-alone",
        title="End to end, no sampling",
        statement="Without sampling the first term drops: with probability 1 - delta, |y_{tau,L} - y*| is at most the "
        "finite-table term at the whole delta plus the temperature term.",
        source="own proof, in the form of the paper's Remark 4; S9's Chebyshev form, triangle inequality",
        kind="tail",
        wrong="the temperature term dropped, on keys k and -k at tau = 3",
        check=partial(_end_to_end_check, form=Form(_chebyshev, draws=False)),
        control=partial(_end_to_end_control, form=Form(_chebyshev, draws=False)),
    ),
)
