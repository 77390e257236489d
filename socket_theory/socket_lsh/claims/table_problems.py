"""Instances for S9, sets of fresh tables on them, and how often their error exceeds a radius."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.claim import Context, Measurement, combine
from socket_theory.core.thresholds import failure_rate, tightness
from socket_theory.socket_lsh.claims.bias import Problem, length
from socket_theory.socket_lsh.claims.instances import query_and_keys, table_weights
from socket_theory.socket_lsh.law import SoftKernel

Float = NDArray[np.float64]
Radius = Callable[[Float, Float], float]  # of one set of tables, from X_l(y_tau) [L, E] and Z_l [L]
Form = Callable[[Context, Problem], Radius]
Setting = tuple[Callable[[Context], Problem], int, int]  # instance, tables a set, sets at quick effort
HEAD_DIM, DELTA, TABLES_AT_ONCE = 16, 0.05, 10_000
_INSTANCES = "random", "extremal", "tightest"


def random_problem(context: Context) -> Problem:
    """64 random keys and values in 16 dimensions."""
    rng = context.generator()
    keys, values = rng.standard_normal((2, 64, HEAD_DIM))
    return Problem(SoftKernel(3, 0.7, "tanh", HEAD_DIM), rng.standard_normal(HEAD_DIM), keys, values)


def _opposite_problem(context: Context, copies: int, num_planes: int) -> Problem:
    """Copies of k and of -k, orthogonal to the query, with values 1 and -1: y_tau = 0 and D = 1."""
    query, keys = query_and_keys(context.generator(), HEAD_DIM, 4.0, [np.pi / 2])
    values = np.repeat([[1.0], [-1.0]], copies, axis=0)
    keys = np.repeat(np.vstack([keys, -keys]), copies, axis=0)
    return Problem(SoftKernel(num_planes, 0.05, "tanh", HEAD_DIM), query, keys, values)


def _crowd_problem(context: Context) -> Problem:
    """128 copies of a key that is in the query's bucket once in 128 tables, and one key that nearly always is."""
    query, keys = query_and_keys(context.generator(), HEAD_DIM, 4.0, [np.pi / 2, 0.0])
    values = np.repeat([[1.0], [-1.0]], [128, 1], axis=0)
    return Problem(SoftKernel(7, 0.05, "tanh", HEAD_DIM), query, np.repeat(keys, [128, 1], axis=0), values)


RANDOM: Setting = (random_problem, 200, 200)
MANY_TABLES: Setting = (random_problem, 1000, 100)
MANY_COPIES: Setting = (partial(_opposite_problem, copies=32, num_planes=1), 50, 400)
FAIR_SIGNS: Setting = (partial(_opposite_problem, copies=1, num_planes=1), 50, 3000)
MANY_FAIR_SIGNS: Setting = (partial(_opposite_problem, copies=1, num_planes=1), 2000, 300)
ONE_TABLE: Setting = (partial(_opposite_problem, copies=1, num_planes=4), 1, 4000)
RARELY_HIT: Setting = (partial(_opposite_problem, copies=1, num_planes=6), 200, 300)
CROWD: Setting = (_crowd_problem, 60, 200)


def table_sets(context: Context, problem: Problem, tables: int, trials: int) -> Iterator[tuple[Float, Float]]:
    """X_l(y_tau) [L, E] and Z_l [L] of `trials` independent sets of L = `tables` tables."""
    residuals = problem.values - problem.soft_target
    for key, count in context.batches(trials, max(1, TABLES_AT_ONCE // tables)):
        weights = table_weights(problem.query, problem.keys, problem.kernel, count * tables, key.generator())
        sets = weights.reshape(count, tables, -1)
        yield from zip(sets @ residuals, sets.sum(axis=2), strict=True)


def _misses(context: Context, setting: Setting, form: Form) -> Measurement:
    """How often |y_{tau,L} - y_tau| = |X-bar| / Z-bar exceeds its radius, against delta."""
    instance, tables, trials = setting
    problem, trials = instance(context), context.samples(trials)
    radius = form(context, problem)
    sets = table_sets(context, problem, tables, trials)
    errors, radii = np.array([(length(x.mean(axis=0)) / z.mean(), radius(x, z)) for x, z in sets]).T
    failures = int(np.count_nonzero(errors > radii))
    return failure_rate(failures, trials, DELTA, context.level(), tightness(radii, errors, DELTA))


def misses_check(
    context: Context, extremal: Setting, tightest: Setting, form: Form, random: Setting = RANDOM
) -> Measurement:
    """On a random instance, whose tightness is printed, on the control's, and on the one that comes nearest the bound.

    The last refutes wrong constants: X is a fair sign, or at L = 1 the rare three-point law of Chebyshev's equality.
    """
    settings = dict(zip(_INSTANCES, (random, extremal, tightest), strict=True))
    parts = zip(context.split(*settings), settings.values(), strict=True)
    return combine(*(_misses(part, setting, form) for part, setting in parts))


def misses_control(context: Context, extremal: Setting, form: Form) -> Measurement:
    """On the extremal instance of the check alone."""
    return _misses(context.split(*_INSTANCES)[1], extremal, form)
