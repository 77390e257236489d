"""S9: what finitely many tables cost in the output, by the mean and the variance of |X-bar|^2."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from socket_theory.bounds.ratio_variance import variance_radius
from socket_theory.core.claim import Claim, Context
from socket_theory.core.table_sets import DELTA, Radius, misses_control
from socket_theory.socket_lsh.claims.bias import Problem
from socket_theory.socket_lsh.claims.table_moments import problem_moments
from socket_theory.socket_lsh.claims.table_problems import (
    MANY_COPIES,
    ONE_TABLE,
    Setting,
    misses_check,
    random_problem,
)

FEW_TABLES: Setting = (random_problem, 60, 200)


def _variance(context: Context, problem: Problem, pairs: bool = True) -> Radius:
    moments = problem_moments(context, problem)
    used = moments if pairs else replace(moments, trace_square=0.0)
    return lambda x, z: float(variance_radius(DELTA, len(z), used, z.mean()))


CLAIMS = (
    Claim(
        id="S9.variance",
        title="Finite tables: variance form",
        statement="Var |X-bar|^2 = V = [Var |X|^2 + 2 (L - 1) tr Sigma^2]/L^3, so |y_{tau,L} - y_tau| <= "
        "sqrt(s^2/L + sqrt(V (1 - delta)/delta)) / Z-bar with probability 1 - delta.",
        source="S9.identity; Cantelli; Sigma by quadrature, Var |X|^2 from 4000 spare tables plus 6 standard errors",
        kind="tail",
        wrong="2 (L - 1) tr Sigma^2 left out, on 32 copies of two opposite keys",
        check=partial(misses_check, extremal=MANY_COPIES, tightest=ONE_TABLE, form=_variance, random=FEW_TABLES),
        control=partial(misses_control, extremal=MANY_COPIES, form=partial(_variance, pairs=False)),
    ),
)
