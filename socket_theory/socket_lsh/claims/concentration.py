"""S8: how far a mean weight strays from its expectation, entry by entry."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from socket_theory.bounds.concentration import bernstein_radius, hoeffding_radius
from socket_theory.core.claim import Claim, Context, Measurement, combine
from socket_theory.core.thresholds import failure_rate, tightness, trials_to_reject
from socket_theory.socket_lsh.bounds.weight_range import collision_half_range
from socket_theory.socket_lsh.claims.instances import mean_weights
from socket_theory.socket_lsh.law import SoftKernel

Float = NDArray[np.float64]
Radius = Callable[[SoftKernel, Float, int, float], Float]
HEAD_DIM, NORM, DELTA, TRIALS = 8, 6.0, 0.05, 1000
MIDDLE = SoftKernel(3, 0.4, "tanh", HEAD_DIM), np.array([0.3, 0.8, 1.3]), 60
STEEP = SoftKernel(10, 0.05, "tanh", HEAD_DIM), np.array([0.2]), 20
COIN, COIN_ANGLE, COIN_DELTA, POWER_LOST = SoftKernel(1, 0.001, "tanh", 2), np.array([np.pi / 2]), 1e-3, 1e-2
HOEFFDING_COINS, BERNSTEIN_COINS = (32, 7.0e-3), (256, 3.2e-3)  # tables, and the binomial miss rate without the sqrt 2


def _hoeffding(kernel: SoftKernel, angles: Float, count: int, delta: float = DELTA) -> Float:
    return np.broadcast_to(hoeffding_radius(delta, count, collision_half_range(kernel)), angles.shape)


def _bernstein(kernel: SoftKernel, angles: Float, count: int, delta: float = DELTA) -> Float:
    return bernstein_radius(delta, count, kernel.variance(angles, NORM), 1.0)


def _entries(
    context: Context, instance: tuple[SoftKernel, Float, int], radius: Radius, counts_planes: bool = False
) -> Measurement:
    """How often |w-bar - kappa| exceeds its radius, key by key, against delta."""
    kernel, angles, tables = instance
    trials = context.samples(TRIALS)
    errors = np.abs(mean_weights(context, kernel, NORM, angles, tables, trials) - kernel.mean(angles, NORM))
    limits = radius(kernel, angles, tables * kernel.num_planes if counts_planes else tables, DELTA)
    level, parts = context.level(len(angles)), []
    for error, limit in zip(errors.T, limits, strict=True):
        failures = int(np.count_nonzero(error > limit))
        parts.append(failure_rate(failures, trials, DELTA, level, tightness(limit, error, DELTA)))
    return combine(*parts)


def _coin(context: Context, coins: tuple[int, float], radius: Radius) -> Measurement:
    """A cold plane and a key orthogonal to the query: w is 0 or 1, and a radius without its sqrt 2 is rejected."""
    tables, wrong = coins
    limit = radius(COIN, COIN_ANGLE, tables, COIN_DELTA)[0]
    trials = context.samples(trials_to_reject(COIN_DELTA, wrong, context.level(), POWER_LOST))
    errors = np.abs(mean_weights(context, COIN, NORM, COIN_ANGLE, tables, trials)[:, 0] - 0.5)
    failures = int(np.count_nonzero(errors > limit))
    return failure_rate(failures, trials, COIN_DELTA, context.level())


def _check(context: Context, radius: Radius, coins: tuple[int, float]) -> Measurement:
    middle, steep, coin = context.split("middle", "steep", "coin")
    return combine(_entries(middle, MIDDLE, radius), _entries(steep, STEEP, radius), _coin(coin, coins, radius))


def _control(context: Context, radius: Radius) -> Measurement:
    return _entries(context.split("middle", "steep", "coin")[1], STEEP, radius, counts_planes=True)


CLAIMS = (
    Claim(
        id="S8.hoeffding",
        title="Entrywise: Hoeffding",
        statement="P(|w-bar - kappa_tau| >= t) <= 2 exp(-2 L t^2 / (sigma_+ - sigma_-)^2), where every weight lies in "
        "[sigma_-, sigma_+], sigma_+- = sigma(+-2 h_max/tau)^P.",
        source="Hoeffding 1963",
        kind="tail",
        wrong="L P terms in place of L, near the query at P = 10",
        check=partial(_check, radius=_hoeffding, coins=HOEFFDING_COINS),
        control=partial(_control, radius=_hoeffding),
    ),
    Claim(
        id="S8.bernstein",
        title="Entrywise: Bernstein",
        statement="P(|w-bar - kappa_tau| >= t) <= 2 exp(-L t^2 / (2 (Var w + t/3))), Var w = nu^P - mu^2P.",
        source="Bernstein's inequality; variance by S5",
        kind="tail",
        wrong="L P terms in place of L, near the query at P = 10",
        check=partial(_check, radius=_bernstein, coins=BERNSTEIN_COINS),
        control=partial(_control, radius=_bernstein),
    ),
)
