"""S9: what finitely many tables cost in the output, by the moments of one table: the bounds to compute with."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from socket_theory.bounds.ratio import bernstein_ratio_radius, chebyshev_radius, fourth_moment_radius
from socket_theory.bounds.residual import ResidualMoments, residual_covariance, spare_table_moments
from socket_theory.bounds.residual_range import residual_range
from socket_theory.core.angular import angles
from socket_theory.core.claim import Claim, Context
from socket_theory.core.table_sets import DELTA, Radius, misses_control, table_sets
from socket_theory.socket_lsh.bounds.residual_moments import weight_covariance
from socket_theory.socket_lsh.claims.bias import Problem
from socket_theory.socket_lsh.claims.table_problems import (
    MANY_COPIES,
    MANY_FAIR_SIGNS,
    ONE_TABLE,
    RARELY_HIT,
    misses_check,
)

SPARE_TABLES, STANDARD_ERRORS = 4000, 6.0


def _bernstein(context: Context, problem: Problem, divided: bool = True) -> Radius:
    bound, second = residual_range(problem.kernel.weight_range(), problem.residuals), problem.second_moment
    return lambda x, z: float(bernstein_ratio_radius(DELTA, len(z), second, bound, z.mean() if divided else 1.0))


def _chebyshev(context: Context, problem: Problem, rooted: bool = True) -> Radius:
    second = problem.second_moment
    return lambda x, z: float(chebyshev_radius(DELTA, len(z), second, z.mean())) * (1.0 if rooted else DELTA**0.5)


def problem_moments(context: Context, problem: Problem) -> ResidualMoments:
    """s^2 and Sigma by quadrature, the other two from spare tables."""
    theta, between = angles(problem.query, problem.keys), angles(problem.keys, problem.keys)
    covariance = weight_covariance(problem.kernel, theta, between, problem.query_norm)
    sigma = residual_covariance(covariance, problem.values - problem.soft_target)
    (spare, _), *_ = table_sets(context.split("spare")[0], problem, SPARE_TABLES, 1)
    estimated = spare_table_moments(spare, STANDARD_ERRORS)
    return replace(estimated, second=float(np.trace(sigma)), trace_square=float((sigma**2).sum()))


def _fourth_moment(context: Context, problem: Problem, cross_terms: bool = True) -> Radius:
    moments = problem_moments(context, problem)
    used = moments if cross_terms else ResidualMoments(0.0, 0.0, moments.fourth)
    return lambda x, z: float(fourth_moment_radius(DELTA, len(z), used, z.mean()))


CLAIMS = (
    Claim(
        id="S9.bernstein",
        title="Finite tables: Bernstein form",
        statement="With s^2 = E|X|^2 and R of S9.plug-in, P(|X-bar| >= t) <= 2 exp(-L t^2 / (2 (s^2 + R t/3))), and "
        "|y_{tau,L} - y_tau| = |X-bar| / Z-bar.",
        source="S9.identity; Pinelis 1994; s^2 by quadrature over pairs of keys",
        kind="tail",
        wrong="no division by Z-bar, on two opposite keys that are rarely hit",
        check=partial(misses_check, extremal=RARELY_HIT, tightest=MANY_FAIR_SIGNS, form=_bernstein),
        control=partial(misses_control, extremal=RARELY_HIT, form=partial(_bernstein, divided=False)),
    ),
    Claim(
        id="S9.chebyshev",
        title="Finite tables: Chebyshev form",
        statement="|y_{tau,L} - y_tau| <= s / (Z-bar sqrt(L delta)) with probability 1 - delta, without a bound on the "
        "weights and at any L.",
        source="S9.identity; Chebyshev; s^2 by quadrature over pairs of keys",
        kind="tail",
        wrong="sqrt(delta) left out, on 32 copies of two opposite keys",
        check=partial(misses_check, extremal=MANY_COPIES, tightest=ONE_TABLE, form=_chebyshev),
        control=partial(misses_control, extremal=MANY_COPIES, form=partial(_chebyshev, rooted=False)),
    ),
    Claim(
        id="S9.fourth-moment",
        title="Finite tables: fourth-moment form",
        statement="E|X-bar|^4 = [m_4 + (L - 1)(s^4 + 2 tr Sigma^2)]/L^3 with m_4 = E|X|^4 and Sigma = Cov X, so "
        "|y_{tau,L} - y_tau| <= (E|X-bar|^4/delta)^(1/4) / Z-bar with probability 1 - delta.",
        source="S9.identity; Markov; Sigma by quadrature, m_4 from 4000 spare tables plus 6 standard errors",
        kind="tail",
        wrong="m_4/L^3 alone, the cross terms forgotten, on 32 copies of two opposite keys",
        check=partial(misses_check, extremal=MANY_COPIES, tightest=ONE_TABLE, form=_fourth_moment),
        control=partial(misses_control, extremal=MANY_COPIES, form=partial(_fourth_moment, cross_terms=False)),
    ),
)
