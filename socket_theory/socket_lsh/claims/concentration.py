"""S8: how far a mean weight strays from its expectation, entry by entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from socket_theory.bounds.concentration import bernstein_radius, hoeffding_radius, two_point_radius
from socket_theory.core.claim import Claim, Context, Measurement, combine, mildest
from socket_theory.core.thresholds import failure_rate, tightness, trials_to_reject
from socket_theory.socket_lsh.bounds.weight_range import collision_half_range, collision_reach
from socket_theory.socket_lsh.claims.instances import mean_weights
from socket_theory.socket_lsh.law import SoftKernel

Float = NDArray[np.float64]
DELTA, SMALL_DELTA, TRIALS, HEAD_DIM = 0.05, 1e-3, 1000, 8
POWER_LOST = 1e-2  # the probability that a coin does not reject a radius without its sqrt 2


class Instance(NamedTuple):
    """Keys at `angles` to a query of this norm, and L."""

    kernel: SoftKernel
    angles: Float
    tables: int
    norm: float = 6.0


Radius = Callable[[Instance, float], Float]
DEPLOYED = Instance(  # the law of tau = .4 at head_dim 128: the scaled map knows tau sqrt(head_dim) alone
    SoftKernel(10, 0.4 * (128 / HEAD_DIM) ** 0.5, "tanh_scaled", HEAD_DIM),
    np.array([0.3, 0.8, 1.2, np.pi / 2]),
    60,
    11.0,
)
MIDDLE = Instance(SoftKernel(3, 0.4, "tanh", HEAD_DIM), np.array([0.3, 0.8, 1.3]), 60)
STEEP = Instance(SoftKernel(10, 0.05, "tanh", HEAD_DIM), np.array([0.2]), 20)
RARE = Instance(SoftKernel(7, 0.001, "tanh", HEAD_DIM), np.array([np.pi / 2]), 6)
COIN = SoftKernel(1, 0.001, "tanh", 2), np.array([np.pi / 2])
FEW_COINS, MORE_COINS = (32, 7.0e-3), (64, 3.6e-3)  # tables, and the binomial miss rate without the sqrt 2
PARTS = "deployed", "middle", "steep", "coin", "rare"


def _hoeffding(instance: Instance, delta: float) -> Float:
    radius = hoeffding_radius(delta, instance.tables, collision_half_range(instance.kernel))
    return np.broadcast_to(radius, instance.angles.shape)


def _bernstein(instance: Instance, delta: float, of_ends: Callable[[Float, Float], Float] = np.maximum) -> Float:
    kernel, angles, tables, norm = instance
    radius = of_ends(*collision_reach(kernel, angles, norm))
    return bernstein_radius(delta, tables, kernel.variance(angles, norm), radius)


def _two_point(instance: Instance, delta: float, of_ends: Callable[[Float, Float], Float] | None = None) -> Float:
    kernel, angles, tables, norm = instance
    above, below = collision_reach(kernel, angles, norm)
    upper = above if of_ends is None else of_ends(above, below)
    return two_point_radius(delta, tables, kernel.variance(angles, norm), upper, below)


def _entries(
    context: Context, instance: Instance, radius: Radius, delta: float = DELTA, trials: int = TRIALS
) -> Measurement:
    """How often |w-bar - kappa| exceeds its radius, key by key, against delta; the tightness of the loosest key."""
    kernel, angles, tables, norm = instance
    trials = context.samples(trials)
    errors = np.abs(mean_weights(context, kernel, norm, angles, tables, trials) - kernel.mean(angles, norm))
    limits, level = radius(instance, delta), context.level(len(angles))
    failures = np.count_nonzero(errors > limits, axis=0)
    parts = [failure_rate(int(missed), trials, delta, level) for missed in failures]
    loosest = max(tightness(limit, error, delta) for limit, error in zip(limits, errors.T, strict=True))
    return replace(combine(*parts), tightness=loosest)


def _for_each_plane(instance: Instance, delta: float, radius: Radius) -> Float:
    return radius(instance._replace(tables=instance.tables * instance.kernel.num_planes), delta)


def _coin(context: Context, coins: tuple[int, float], radius: Radius) -> Measurement:
    """A cold plane and a key orthogonal to the query: w is 0 or 1, and a radius without its sqrt 2 is rejected."""
    tables, wrong = coins
    trials = trials_to_reject(SMALL_DELTA, wrong, context.level(), POWER_LOST)
    return _entries(context, Instance(*COIN, tables), radius, SMALL_DELTA, trials)


def _rare(context: Context, radius: Radius) -> Measurement:
    """A weight that is 1 in one table of 128 and else 0: one hit in 6 tables is far above the mean, never below it."""
    kernel, angles, tables, norm = RARE
    hit = 1 - (1 - float(kernel.mean(angles, norm)[0])) ** tables
    trials = trials_to_reject(SMALL_DELTA, 0.95 * hit, context.level())
    return _entries(context, RARE, radius, SMALL_DELTA, trials)


def _check(context: Context, radius: Radius, coins: tuple[int, float]) -> Measurement:
    deployed, middle, steep, coin, rare = context.split(*PARTS)
    instances = (deployed, DEPLOYED), (middle, MIDDLE), (steep, STEEP)
    entries = [_entries(part, instance, radius) for part, instance in instances]
    return combine(*entries, _coin(coin, coins, radius), _rare(rare, radius))


def _control(context: Context, radius: Radius, shorter: Radius | None = None) -> Measurement:
    """L P tables for L near the query; and a range that is too short, on the rare weight."""
    _, _, steep, _, rare = context.split(*PARTS)
    wrong = [_entries(steep, STEEP, partial(_for_each_plane, radius=radius))]
    return mildest(*wrong, *([_rare(rare, shorter)] if shorter else []))


CLAIMS = (
    Claim(
        id="S8.hoeffding",
        title="Entrywise: Hoeffding",
        statement="P(|w-bar - kappa_tau| >= t) <= 2 exp(-2 L t^2 / (sigma_+ - sigma_-)^2), where every weight lies in "
        "[sigma_-, sigma_+], sigma_+- = sigma(+-2 h_max/tau)^P.",
        source="Hoeffding 1963",
        kind="tail",
        wrong="L P terms in place of L, near the query at P = 10",
        check=partial(_check, radius=_hoeffding, coins=FEW_COINS),
        control=partial(_control, radius=_hoeffding),
    ),
    Claim(
        id="S8.bernstein",
        title="Entrywise: Bernstein",
        statement="P(w-bar - kappa_tau >= t) <= exp(-L t^2 / (2 (Var w + R t/3))) with R = sigma_+ - kappa_tau, the "
        "lower side with R = kappa_tau - sigma_-, and |w-bar - kappa_tau| with the larger R and 2 exp; "
        "Var w = nu^P - mu^2P.",
        source="Bernstein's inequality; variance by S5",
        kind="tail",
        wrong="L P terms in place of L, near the query at P = 10; the smaller R for both sides, where hits are rare",
        check=partial(_check, radius=_bernstein, coins=MORE_COINS),
        control=partial(_control, radius=_bernstein, shorter=partial(_bernstein, of_ends=np.minimum)),
    ),
    Claim(
        id="S8.two-point",
        title="Entrywise: two-point form",
        statement="P(w-bar - kappa_tau >= t) <= exp(-L K(t)), K the divergence between coins of mean q and "
        "v/(v + b^2), q = (v + b t)/(v + b^2), v = Var w, b = sigma_+ - kappa_tau; the lower side with "
        "b = kappa_tau - sigma_-; |w-bar - kappa_tau| with the sum of both.",
        source="Bennett 1962; Hoeffding 1963, Theorem 3; variance by S5",
        kind="tail",
        wrong="L P terms in place of L, near the query at P = 10; the lower b for both sides, where hits are rare",
        check=partial(_check, radius=_two_point, coins=FEW_COINS),
        control=partial(_control, radius=_two_point, shorter=partial(_two_point, of_ends=np.minimum)),
    ),
)
