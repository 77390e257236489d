"""Sets of fresh tables on one row of keys and values, and how often its error exceeds a radius (S9, R5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.claim import Context, Measurement, combine, mildest
from socket_theory.core.thresholds import failure_rate, tightness

Float = NDArray[np.float64]
DELTA, TABLES_AT_ONCE = 0.05, 10_000
INSTANCES = "random", "extremal", "tightest"


class Row(Protocol):
    """Values about the exact target, and weights of fresh tables."""

    @property
    def residuals(self) -> Float:
        """v_i - y [N, E]."""

    def draw_weights(self, count: int, rng: np.random.Generator) -> Float:
        """w_i^(l) of `count` fresh tables [count, N]."""


R = TypeVar("R", bound=Row)
Radius = Callable[[Float, Float], float]  # of one set of tables, from X_l(y) [L, E] and Z_l [L]
Form = Callable[[Context, R], Radius]
Setting = tuple[Callable[[Context], R], int, int]  # instance, tables a set, sets at quick effort


def table_sets(context: Context, row: Row, tables: int, trials: int) -> Iterator[tuple[Float, Float]]:
    """X_l(y) [L, E] and Z_l [L] of `trials` independent sets of L = `tables` tables."""
    for key, count in context.batches(trials, max(1, TABLES_AT_ONCE // tables)):
        sets = row.draw_weights(count * tables, key.generator()).reshape(count, tables, -1)
        yield from zip(sets @ row.residuals, sets.sum(axis=2), strict=True)


def misses(context: Context, setting: Setting[R], form: Form[R]) -> Measurement:
    """How often |y_L - y| = |X-bar| / Z-bar exceeds its radius, against delta."""
    instance, tables, trials = setting
    row, trials = instance(context), context.samples(trials)
    radius = form(context, row)
    sets = table_sets(context, row, tables, trials)
    errors, radii = np.array([(np.linalg.norm(x.mean(axis=0)) / z.mean(), radius(x, z)) for x, z in sets]).T
    failures = int(np.count_nonzero(errors > radii))
    return failure_rate(failures, trials, DELTA, context.level(), tightness(radii, errors, DELTA))


def misses_check(
    context: Context, random: Setting[R], extremal: Setting[R], tightest: Setting[R], form: Form[R]
) -> Measurement:
    """On a random instance, whose tightness is printed, on the control's, and on the one that comes nearest the bound.

    The last refutes wrong constants: X is a fair sign, or at L = 1 the rare three-point law of Chebyshev's equality.
    """
    parts = zip(context.split(*INSTANCES), (random, extremal, tightest), strict=True)
    return combine(*(misses(part, setting, form) for part, setting in parts))


def misses_control(
    context: Context,
    extremal: Setting[R],
    form: Form[R],
    tightest: Setting[R] | None = None,
    shorter: Form[R] | None = None,
) -> Measurement:
    """On the extremal instance of the check alone; with `shorter`, a form of too short a range, on the tightest too.

    Both are to be rejected.
    """
    _, control, tight = context.split(*INSTANCES)
    wrong = [misses(control, extremal, form)]
    if tightest is not None and shorter is not None:
        wrong.append(misses(tight, tightest, shorter))
    return mildest(*wrong)
