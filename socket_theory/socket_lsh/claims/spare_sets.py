"""S9: what finitely many tables cost in the output, read off spare sets of tables."""

from __future__ import annotations

import numpy as np

from socket_theory.bounds.spare_sets import spare_set_errors, spare_set_radius, spare_sets_needed
from socket_theory.core.claim import Claim, Context, Measurement, combine
from socket_theory.core.table_sets import DELTA, table_sets
from socket_theory.core.thresholds import failure_rate, tightness
from socket_theory.socket_lsh.claims.table_problems import CROWD, Setting, random_problem

RANDOM: Setting = (random_problem, 2, 200)
RARE: Setting = (CROWD[0], 2, 200)


def _misses(context: Context, setting: Setting, spare_tables: int = 1) -> Measurement:
    """How often the error of one set exceeds the radius of fresh spare sets, of `spare_tables` times as many tables."""
    instance, tables, trials = setting
    problem, trials = instance(context), context.samples(trials)
    used, spare = context.split("used", "spare")
    errors = [float(spare_set_errors(x, z, tables)[0]) for x, z in table_sets(used, problem, tables, trials)]
    many = tables * spare_tables
    sets = table_sets(spare, problem, many * spare_sets_needed(DELTA), trials)
    radii = [spare_set_radius(DELTA, spare_set_errors(x, z, many)) for x, z in sets]
    failures = int(np.count_nonzero(np.array(errors) > np.array(radii)))
    return failure_rate(failures, trials, DELTA, context.level(), tightness(radii, errors, DELTA))


def _check(context: Context) -> Measurement:
    parts = zip(context.split("random", "rare"), (RANDOM, RARE), strict=True)
    return combine(*(_misses(part, setting) for part, setting in parts))


def _control(context: Context) -> Measurement:
    return _misses(context.split("random", "rare")[0], RANDOM, spare_tables=2)


CLAIMS = (
    Claim(
        id="S9.spare-sets",
        title="Finite tables: by spare sets",
        statement="Of K >= 1/delta - 1 spare sets of L tables each, the floor(delta (K + 1))-th largest |y_{tau,L} - "
        "y_tau| is exceeded by that of the set in use with probability at most delta, over both: no moments, no range.",
        source="own proof; ranks of exchangeable numbers",
        kind="tail",
        wrong="spare sets of 2L tables",
        check=_check,
        control=_control,
    ),
)
