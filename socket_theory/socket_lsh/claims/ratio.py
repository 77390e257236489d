"""S9: what finitely many tables cost in the output, by bounds that hold for any keys and values."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from socket_theory.bounds.ratio import (
    empirical_bernstein_radius,
    hoeffding_ratio_radius,
    normaliser_failure,
    paper_condition_tables,
    plug_in_radius,
)
from socket_theory.bounds.residual_range import residual_range
from socket_theory.core.claim import Claim, Context, Measurement, combine, worst
from socket_theory.core.table_sets import DELTA, Radius, misses_control
from socket_theory.core.thresholds import failure_rate
from socket_theory.socket_lsh.bounds.weight_range import weight_bound
from socket_theory.socket_lsh.claims.bias import Problem
from socket_theory.socket_lsh.claims.instances import mean_weights, table_weights
from socket_theory.socket_lsh.claims.table_problems import (
    COPIED_SIGNS,
    CROWD,
    FAIR_SIGNS,
    MANY_COPIES,
    MANY_FAIR_SIGNS,
    MANY_TABLES,
    RARELY_HIT,
    misses_check,
    random_problem,
)
from socket_theory.socket_lsh.law import SoftKernel

Float = NDArray[np.float64]
NORM, SHORTFALL, ROUNDING = 4.0, 1e-3, 1e-12


def _identity(context: Context, realised: bool) -> Measurement:
    """y_{tau,L} - y_tau against X-bar / Z-bar, in units of the largest value."""
    problem, tables = random_problem(context), 50
    errors = []
    for key, _ in context.batches(20, 1):
        weights = table_weights(problem.query, problem.keys, problem.kernel, tables, key.generator())
        x = (weights @ (problem.values - problem.soft_target)).mean(axis=0)
        estimate = weights.sum(axis=0) @ problem.values / weights.sum()
        mass = weights.sum(axis=1).mean() if realised else problem.kernel_values[0].sum()
        errors.append(np.max(np.abs(estimate - problem.soft_target - x / mass)))
    return worst(errors, ROUNDING * np.max(np.abs(problem.values)))


def _paper_tables(kernel: SoftKernel, mean: float) -> int:
    return paper_condition_tables(4 * SHORTFALL, weight_bound(kernel, 1), mean)


def _tail_tables(kernel: SoftKernel, mean: float, spread: bool = True) -> int:
    """The tables at which exp(-L Z^2 / (8 E Z^2)) is the shortfall probability."""
    square = float(kernel.second_moment(np.pi / 2, NORM)) if spread else mean**2
    return round(math.log(SHORTFALL) / math.log(float(normaliser_failure(1, mean, square))))


def _normaliser(context: Context, num_planes: int, tables_for: Callable[[SoftKernel, float], int]) -> Measurement:
    """How often Z-bar < Z_tau/2 for copies of one key orthogonal to the query."""
    kernel, trials = SoftKernel(num_planes, 0.05, "tanh", 3), context.samples(1500)
    mean = float(kernel.mean(np.pi / 2, NORM))
    weights = mean_weights(context, kernel, NORM, [np.pi / 2], tables_for(kernel, mean), trials)
    return failure_rate(int(np.count_nonzero(weights < mean / 2)), trials, SHORTFALL, context.level())


def _normaliser_check(context: Context) -> Measurement:
    paper, tail = context.split("paper", "lower tail")
    return combine(_normaliser(paper, 1, _paper_tables), _normaliser(tail, 3, _tail_tables))


def _normaliser_control(context: Context) -> Measurement:
    return _normaliser(context.split("paper", "lower tail")[1], 3, partial(_tail_tables, spread=False))


def _hoeffding(context: Context, problem: Problem, bounded: bool = True) -> Radius:
    bound, radius = weight_bound(problem.kernel, len(problem.keys)), problem.value_radius(problem.soft_target)
    mass = float(problem.kernel_values[0].sum())
    return lambda x, z: hoeffding_ratio_radius(DELTA, len(z), bound if bounded else 1.0, radius, mass)


def _plug_in(context: Context, problem: Problem, divided: bool = True, rooted: bool = True) -> Radius:
    bound = residual_range(problem.kernel.weight_range(), problem.residuals)
    if not rooted:
        bound /= len(problem.keys) ** 0.5
    return lambda x, z: float(plug_in_radius(DELTA, len(z), bound, z.mean() if divided else 1.0))


def _empirical_bernstein(context: Context, problem: Problem, bounded: bool = True) -> Radius:
    weights, count = problem.kernel.weight_range(), len(problem.keys)

    def radius(x: Float, z: Float) -> float:
        shift = x.mean(axis=0) / z.mean()
        ends = weights if bounded else (0.0, float(z.max()) / count)
        return empirical_bernstein_radius(DELTA, x - z[:, None] * shift, z, ends, problem.residuals - shift)

    return radius


CLAIMS = (
    Claim(
        id="S9.identity",
        title="Finite tables: the error is a ratio",
        statement="y_{tau,L} - y_tau = X-bar / Z-bar with centred X_l = sum_i w_i^(l) (v_i - y_tau): dividing by the "
        "realised Z-bar costs no probability.",
        source="own proof; sum_i w-bar_i (v_i - y_tau) = Z-bar (y_{tau,L} - y_tau)",
        kind="identity",
        wrong="Z_tau in place of Z-bar",
        check=partial(_identity, realised=True),
        control=partial(_identity, realised=False),
    ),
    Claim(
        id="S9.normaliser",
        title="Finite tables: the normaliser",
        statement="L >= 2 B^2 ln(8/delta)/Z_tau^2 gives Z-bar >= Z_tau/2 with probability 1 - delta/4, B = N sigma_+, "
        "and P(Z-bar < Z_tau/2) <= exp(-L Z_tau^2 / (8 E Z^2)) at any L.",
        source="own proof; Hoeffding, and the lower tail of nonnegative terms",
        kind="tail",
        wrong="Z_tau^2 in place of E Z^2",
        check=_normaliser_check,
        control=_normaliser_control,
    ),
    Claim(
        id="S9.hoeffding",
        title="Finite tables: Hoeffding form",
        statement="If L >= 2 B^2 ln(2/delta)/Z_tau^2, then |y_{tau,L} - y_tau| <= (2 B D/Z_tau) sqrt(2 ln(4/delta)/L) "
        "with probability 1 - delta, D = max |v_i - y_tau|.",
        source="own proof; Pinelis 1994 for the numerator, Hoeffding for Z-bar",
        kind="tail",
        wrong="B = 1, on 32 copies of two opposite keys",
        check=partial(misses_check, extremal=MANY_COPIES, tightest=FAIR_SIGNS, form=_hoeffding, random=MANY_TABLES),
        control=partial(misses_control, extremal=MANY_COPIES, form=partial(_hoeffding, bounded=False)),
    ),
    Claim(
        id="S9.plug-in",
        title="Finite tables: plug-in form",
        statement="Every |X_l| <= R = m |sum u_i| + h min(sum |u_i|, sqrt(N) |U|), u_i = v_i - y_tau the rows of U, "
        "m, h = (sigma_+ +- sigma_-)/2; so |y_{tau,L} - y_tau| <= (R/Z-bar) sqrt(2 ln(2/delta)/L) with probability "
        "1 - delta, at any L.",
        source="S9.identity; own proof of R; Pinelis 1994",
        kind="tail",
        wrong="no division by Z-bar, on two opposite keys rarely hit; sqrt N left out, on copies of fair signs",
        check=partial(misses_check, extremal=RARELY_HIT, tightest=COPIED_SIGNS, form=_plug_in),
        control=partial(
            misses_control,
            extremal=RARELY_HIT,
            form=partial(_plug_in, divided=False),
            tightest=COPIED_SIGNS,
            shorter=partial(_plug_in, rooted=False),
        ),
    ),
    Claim(
        id="S9.empirical-bernstein",
        title="Finite tables: empirical Bernstein form",
        statement="With y-hat = y_{tau,L}, s^2 = mean |X_l(y-hat)|^2, zeta^2 = mean Z_l^2, c = sqrt(2 ln(4/delta)/L), "
        "f = c sqrt(2 ln(2/delta)/L) + 2 ln(4/delta)/(3L), with R the range of |X| about every mean of the values and "
        "Q that about y-hat, B = N sigma_+: with probability 1 - delta |y-hat - y_tau| is at most (s c + R f)/(Z-bar "
        "- zeta c) and (s c + Q f)/(Z-bar - zeta c - B f), where these are positive: nothing exact is needed.",
        source="own proof; Pinelis 1994, and the triangle inequality in l2",
        kind="tail",
        wrong="the largest realised Z_l as B, on a crowd that most sets of tables never hit",
        check=partial(misses_check, extremal=CROWD, tightest=MANY_FAIR_SIGNS, form=_empirical_bernstein),
        control=partial(misses_control, extremal=CROWD, form=partial(_empirical_bernstein, bounded=False)),
    ),
)
