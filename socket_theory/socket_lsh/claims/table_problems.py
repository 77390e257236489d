"""Instances for S9 and their sizes."""

from __future__ import annotations

from functools import partial

import numpy as np

from socket_theory.core import table_sets
from socket_theory.core.claim import Context, Measurement
from socket_theory.socket_lsh.claims.bias import Problem
from socket_theory.socket_lsh.claims.instances import query_and_keys
from socket_theory.socket_lsh.law import SoftKernel

Form = table_sets.Form[Problem]
Setting = table_sets.Setting[Problem]
HEAD_DIM = 16


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
COPIED_SIGNS: Setting = (partial(_opposite_problem, copies=8, num_planes=1), 50, 3000)
MANY_FAIR_SIGNS: Setting = (partial(_opposite_problem, copies=1, num_planes=1), 2000, 300)
ONE_TABLE: Setting = (partial(_opposite_problem, copies=1, num_planes=4), 1, 4000)
RARELY_HIT: Setting = (partial(_opposite_problem, copies=1, num_planes=6), 200, 300)
CROWD: Setting = (_crowd_problem, 60, 200)


def misses_check(
    context: Context, extremal: Setting, tightest: Setting, form: Form, random: Setting = RANDOM
) -> Measurement:
    """`table_sets.misses_check` on the random instance of 200 tables."""
    return table_sets.misses_check(context, random, extremal, tightest, form)
