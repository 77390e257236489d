"""R4: how far an entry of L tables strays from its expectation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from socket_theory.bounds.concentration import bernstein_radius
from socket_theory.core.claim import Claim, Context, Measurement, combine, mildest
from socket_theory.core.thresholds import failure_rate, tightness, trials_to_reject
from socket_theory.race.bounds.entries import bernstein_entry_radius, collision_reach, hoeffding_entry_radius
from socket_theory.race.claims.tables import mean_weights, query_and_keys, table_weights
from socket_theory.race.law import RaceKernel

Float = NDArray[np.float64]
Radius = Callable[[RaceKernel, float, int, Float], Float]
NORMS, DELTA, TRIALS = (6.0, 6.0), 0.05, 1000
MIDDLE = RaceKernel(3, 2.5), np.array([0.3, 0.8, 1.3]), 60
STEEP = RaceKernel(10, 20.0), np.array([0.2]), 20
COIN, COIN_ANGLE, COIN_DELTA, POWER_LOST = RaceKernel(1, 1000.0), np.array([np.pi / 2]), 1e-3, 1e-2
RARE, RARE_TABLES = RaceKernel(7, 1000.0), 6
PARTS = "middle", "steep", "coin", "rare"
HOEFFDING_COINS, BERNSTEIN_COINS = (32, 7.0e-3), (64, 3.6e-3)  # tables, and the binomial miss rate without the sqrt 2


def _hoeffding(kernel: RaceKernel, delta: float, count: int, theta: Float) -> Float:
    return np.full(theta.shape, hoeffding_entry_radius(kernel, delta, count))


def _bernstein(kernel: RaceKernel, delta: float, count: int, theta: Float) -> Float:
    return bernstein_entry_radius(kernel, delta, count, theta, *NORMS)


def _smaller_reach(kernel: RaceKernel, delta: float, count: int, theta: Float) -> Float:
    return bernstein_radius(
        delta, count, kernel.variance(theta, *NORMS), np.minimum(*collision_reach(kernel, theta, *NORMS))
    )


def _entries(
    context: Context, instance: tuple[RaceKernel, Float, int], radius: Radius, counts_planes: bool = False
) -> Measurement:
    """How often |w-bar - kappa| exceeds its radius, key by key, against delta."""
    kernel, theta, tables = instance
    trials = context.samples(TRIALS)
    errors = np.abs(mean_weights(context, kernel, theta, NORMS, tables, trials) - kernel.mean(theta, *NORMS))
    limits = radius(kernel, DELTA, tables * kernel.num_planes if counts_planes else tables, theta)
    level, parts = context.level(len(theta)), []
    for error, limit in zip(errors.T, limits, strict=True):
        failures = int(np.count_nonzero(error > limit))
        parts.append(failure_rate(failures, trials, DELTA, level, tightness(limit, error, DELTA)))
    return combine(*parts)


def _coin(context: Context, coins: tuple[int, float], radius: Radius) -> Measurement:
    """A steep plane and vectors at a right angle: w is nearly 0 or 1, and a radius without its sqrt 2 is rejected."""
    tables, wrong = coins
    limit = radius(COIN, COIN_DELTA, tables, COIN_ANGLE)[0]
    trials = trials_to_reject(COIN_DELTA, wrong, context.level(), POWER_LOST)
    errors = np.abs(mean_weights(context, COIN, COIN_ANGLE, NORMS, tables, trials)[:, 0] - 0.5)
    failures = int(np.count_nonzero(errors > limit))
    return failure_rate(failures, trials, COIN_DELTA, context.level())


def _rare(context: Context, radius: Radius) -> Measurement:
    """A weight that is nearly 1 in one table of 128 and else nearly 0: one hit in 6 tables is far above the mean."""
    mean, limit = RARE.mean(COIN_ANGLE, *NORMS), radius(RARE, COIN_DELTA, RARE_TABLES, COIN_ANGLE)
    hit = 1 - (1 - float(mean[0])) ** RARE_TABLES
    trials = trials_to_reject(COIN_DELTA, 0.9 * hit, context.level())
    errors = np.abs(mean_weights(context, RARE, COIN_ANGLE, NORMS, RARE_TABLES, trials) - mean)
    return failure_rate(int(np.count_nonzero(errors > limit)), trials, COIN_DELTA, context.level())


def _range(context: Context) -> Measurement:
    """Weights of long vectors at an angle of 0 and of pi stay between the ends of the range, and reach them."""
    kernel = MIDDLE[0]
    query, keys = query_and_keys(context.generator(), [0.0, np.pi], 1e6, 1e6)
    weights = table_weights(query, keys, kernel, TRIALS, context.key.fold_in("planes").generator())
    (low, high), (least, most) = kernel.weight_range(), (weights.min(), weights.max())
    off = max(low / least, least / low, most / high, high / most) - 1
    return Measurement(float(off), 1e-12)


def _check(context: Context, radius: Radius, coins: tuple[int, float]) -> Measurement:
    middle, steep, coin, rare = context.split(*PARTS)
    parts = _entries(middle, MIDDLE, radius), _entries(steep, STEEP, radius), _coin(coin, coins, radius)
    return combine(*parts, _rare(rare, radius), _range(context))


def _control(context: Context, radius: Radius, shorter: Radius | None = None) -> Measurement:
    """L P tables for L near the query; and a range that is too short, on the rare weight."""
    _, steep, _, rare = context.split(*PARTS)
    wrong = [_entries(steep, STEEP, radius, counts_planes=True)]
    return mildest(*wrong, *([_rare(rare, shorter)] if shorter else []))


CLAIMS = (
    Claim(
        id="R4.hoeffding",
        title="One entry: Hoeffding",
        statement="Every weight lies in [((1 - T^2)/2)^P, ((1 + T^2)/2)^P] with T = tanh beta, and "
        "P(|w-bar - kappa| >= t) <= 2 exp(-2 L t^2 / r^2) with r the length of this interval.",
        source="R1; Hoeffding 1963",
        kind="tail",
        wrong="L P terms in place of L, near the query at P = 10",
        check=partial(_check, radius=_hoeffding, coins=HOEFFDING_COINS),
        control=partial(_control, radius=_hoeffding),
    ),
    Claim(
        id="R4.bernstein",
        title="One entry: Bernstein",
        statement="P(|w-bar - kappa| >= t) <= 2 exp(-L t^2 / (2 (Var w + R t/3))), Var w by R2, R the larger of "
        "w_max - kappa and kappa - w_min with the ends of R4.hoeffding's interval.",
        source="Bernstein's inequality; R2",
        kind="tail",
        wrong="L P terms in place of L, near the query at P = 10; the smaller R for both sides, where hits are rare",
        check=partial(_check, radius=_bernstein, coins=BERNSTEIN_COINS),
        control=partial(_control, radius=_bernstein, shorter=_smaller_reach),
    ),
)
