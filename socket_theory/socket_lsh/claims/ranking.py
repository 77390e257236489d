"""S14: how often finite tables misrank keys, and how many of the true top-k they keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from socket_theory.bounds.large_deviations import TiltedLaw
from socket_theory.bounds.ranking import misrank_bernstein, misrank_hoeffding, misrank_hoeffding_range
from socket_theory.bounds.recall import KeyScores
from socket_theory.core.claim import Claim, Context, Measurement, combine, worst
from socket_theory.core.thresholds import bennett_radius, failure_rate
from socket_theory.socket_lsh.bounds.pair_difference import pair_difference
from socket_theory.socket_lsh.claims.instances import angle_between, mean_weights
from socket_theory.socket_lsh.law import SoftKernel

Float = NDArray[np.float64]
Pair = tuple[SoftKernel, float, tuple[float, float], float, int, int]  # the last: trials at quick
Case = tuple[SoftKernel, float, Float, int, float, float, int]  # k, recall, delta, trials at quick
MisrankBound = Callable[[Pair], float]
HEAD_DIM = 8
_HOT: Pair = (SoftKernel(3, 2.0, "tanh", HEAD_DIM), 4.0, (0.6, 1.0), 0.0, 30, 1500)
_DEPLOYED: Pair = (SoftKernel(10, 0.4, "tanh_scaled", 128), 11.0, (0.3, 0.6), 0.0, 8, 1000)
_COLD: Pair = (SoftKernel(1, 0.05, "tanh", HEAD_DIM), 6.0, (0.8, 1.0), 0.0, 200, 1500)
_COIN, _COIN_ANGLES = SoftKernel(1, 0.001, "tanh", 3), (np.pi * 3 / 8, np.pi * 5 / 8)
_OPPOSITE: Pair = (_COIN, 6.0, _COIN_ANGLES, -1.0, 100, 12_000)
_FEWER_OPPOSITE: Pair = (_COIN, 6.0, _COIN_ANGLES, -1.0, 60, 3500)
_MANY_KEYS: Case = (
    SoftKernel(2, 0.4, "tanh", HEAD_DIM),
    4.0,
    np.array([0.1, 0.2, 0.3, 0.6, 1.2, 1.4]),
    4,
    0.75,
    0.05,
    300,
)
_CLOSE_KEYS: Case = (SoftKernel(1, 0.05, "tanh", HEAD_DIM), 6.0, np.array([0.8, 1.0, 1.0, 1.0, 1.0]), 1, 1.0, 0.05, 300)
_OPPOSITE_KEYS: Case = (_COIN, 6.0, np.array(_COIN_ANGLES), 1, 1.0, 1e-3, 5000)


def _gap(pair: Pair) -> float:
    kernel, norm, angles, *_ = pair
    return float(kernel.mean_difference(*angles, norm))


def _misranking(context: Context, pair: Pair, bound: MisrankBound, forgotten: int) -> Measurement:
    """How often w-bar_a <= w-bar_b, against the bound with Delta^(2 - forgotten) over its denominator."""
    kernel, norm, angles, correlation, tables, trials = pair
    trials, promise = context.samples(trials), bound(pair) ** (_gap(pair) ** -forgotten)
    residuals = [[1.0, 0.0], [correlation, np.sqrt(1 - correlation**2)]]
    near, far = mean_weights(context, kernel, norm, angles, tables, trials, residuals).T
    failures = int(np.count_nonzero(near <= far))
    return failure_rate(failures, trials, promise, context.level(), trials * promise / failures if failures else None)


def _misranking_check(context: Context, bound: MisrankBound) -> Measurement:
    pairs = {"hot": _HOT, "cold": _COLD, "opposite": _OPPOSITE}
    parts = zip(context.split(*pairs), pairs.values(), strict=True)
    return combine(*(_misranking(part, pair, bound, 0) for part, pair in parts))


def _misranking_control(context: Context, bound: MisrankBound) -> Measurement:
    return _misranking(context.split("hot", "cold", "opposite")[1], _COLD, bound, 1)


def _hoeffding(pair: Pair) -> float:
    return float(misrank_hoeffding(_gap(pair), pair[4]))


def _range(pair: Pair) -> float:
    low, high = pair[0].weight_range()
    return float(misrank_hoeffding_range(_gap(pair), pair[4], high - low))


def _bernstein(pair: Pair) -> float:
    kernel, norm, angles, correlation, tables, _ = pair
    variance = kernel.difference_variance(*angles, angle_between(*angles, correlation), norm)
    low, high = kernel.weight_range()
    return float(misrank_bernstein(_gap(pair), tables, variance, high - low))


def _tilted(pair: Pair, correlation: float) -> TiltedLaw:
    kernel, norm, angles, *_ = pair
    return pair_difference(kernel, *angles, angle_between(*angles, correlation), norm)


def _large_deviations(pair: Pair) -> float:
    return _tilted(pair, pair[3]).bahadur_rao(pair[4])


def _large_deviations_check(context: Context) -> Measurement:
    """The bound at two pairs; the detail is L' / L, where L' tables bring it to the rate that L tables have."""
    pairs = {"deployed": _DEPLOYED, "opposite": _FEWER_OPPOSITE}
    parts = zip(context.split(*pairs), pairs.values(), strict=True)
    deployed, opposite = [_misranking(part, pair, _large_deviations, 0) for part, pair in parts]
    enough = _tilted(_DEPLOYED, 0.0).bahadur_rao_tables(max(deployed.observed, 1e-9))
    return combine(replace(deployed, detail=(("tables, bound/measured", enough / _DEPLOYED[4]),)), opposite)


def _large_deviations_control(context: Context) -> Measurement:
    wrong = _tilted(_FEWER_OPPOSITE, 0.0).bahadur_rao(_FEWER_OPPOSITE[4])
    return _misranking(context.split("deployed", "opposite")[1], _FEWER_OPPOSITE, lambda _: wrong, 0)


def _recall(context: Context, case: Case, forgotten: int) -> Measurement:
    """How often top-k recall is below r, at the tables of S14 times Delta^forgotten, and its mean against its bound."""
    kernel, norm, angles, k, recall, delta, trials = case
    means = kernel.mean(angles, norm)
    scores_law = KeyScores(means, kernel.variance(angles, norm), kernel.weight_range())
    wanted = int(np.ceil(recall * k))
    tables = round(scores_law.recall_tables(k, recall, delta) * (means[wanted - 1] - means[k]) ** forgotten)
    residuals = [[1.0], [-1.0]] if case is _OPPOSITE_KEYS else None
    scores = mean_weights(context, kernel, norm, angles, tables, trials := context.samples(trials), residuals)
    found = np.count_nonzero(np.argsort(-scores, axis=1)[:, :k] < k, axis=1)
    rare = failure_rate(int(np.count_nonzero(found < wanted)), trials, delta, context.level(2))
    least = scores_law.expected_recall_bound(k, tables)
    return combine(rare, worst(1 - found.mean() / k, 1 - least + bennett_radius(0.25, 1.0, trials, context.level(2))))


def _recall_check(context: Context) -> Measurement:
    cases = {"many keys": _MANY_KEYS, "close keys": _CLOSE_KEYS, "opposite keys": _OPPOSITE_KEYS}
    parts = zip(context.split(*cases), cases.values(), strict=True)
    return combine(*(_recall(part, case, 0) for part, case in parts))


def _recall_control(context: Context) -> Measurement:
    return _recall(context.split("many keys", "close keys", "opposite keys")[1], _CLOSE_KEYS, 1)


CLAIMS = (
    Claim(
        id="S14.hoeffding",
        title="Misranking: Hoeffding",
        statement="For Delta = kappa_a - kappa_b > 0, P(w-bar_a <= w-bar_b) <= exp(-L Delta^2 / 2).",
        source="Hoeffding 1963, for w_a - w_b in [-1, 1]: the paper's form",
        kind="tail",
        wrong="Delta in place of Delta^2",
        check=partial(_misranking_check, bound=_hoeffding),
        control=partial(_misranking_control, bound=_hoeffding),
    ),
    Claim(
        id="S14.range",
        title="Misranking: range",
        statement="P(w-bar_a <= w-bar_b) <= exp(-L Delta^2 / (2 (sigma_+ - sigma_-)^2)), sharper at high temperature.",
        source="Hoeffding 1963, for weights in [sigma_-, sigma_+]",
        kind="tail",
        wrong="Delta in place of Delta^2",
        check=partial(_misranking_check, bound=_range),
        control=partial(_misranking_control, bound=_range),
    ),
    Claim(
        id="S14.bernstein",
        title="Misranking: Bernstein",
        statement="P(w-bar_a <= w-bar_b) <= exp(-L Delta^2 / (2 (Var(w_a - w_b) + R Delta/3))) with the range "
        "R = sigma_+ - sigma_- + Delta of Delta - (w_a - w_b).",
        source="Bernstein's inequality with the exact variance of S15",
        kind="tail",
        wrong="Delta in place of Delta^2",
        check=partial(_misranking_check, bound=_bernstein),
        control=partial(_misranking_control, bound=_bernstein),
    ),
    Claim(
        id="S14.large-deviations",
        title="Misranking: Chernoff, corrected",
        statement="With M the least E exp(-lambda (w_a - w_b)), P(w-bar_a <= w-bar_b) <= "
        "M^L min(1, (1/(lambda s sqrt(2 pi)) + 0.9496 r/s^3)/sqrt L), s and r the standard deviation and third "
        "absolute central moment of w_a - w_b under the law tilted by exp(-lambda (w_a - w_b)).",
        source="own derivation, after Bahadur and Rao 1960; Berry-Esseen theorem, constant of Shevtsova 2011",
        kind="tail",
        wrong="the correlation of the keys' residuals ignored, and with it most of the covariance of the weights",
        check=_large_deviations_check,
        control=_large_deviations_control,
    ),
    Claim(
        id="S14.recall",
        title="Tables for recall",
        statement="With p_i(t) the least of Bernstein's and Cantelli's bounds for key i on the wrong side of t: for "
        "every t and j in [m, k], m = ceil(r k), top-k recall is below r with probability at most "
        "sum_{i<=j} p_i/(j-m+1) + sum_{i>k} p_i/(k-m+1), and expected recall is at least 1 - sum_i p_i/k.",
        source="own derivation: a threshold and Markov's inequality",
        kind="tail",
        wrong="Delta L in place of L tables, Delta = kappa_(m) - kappa_(k+1)",
        check=_recall_check,
        control=_recall_control,
    ),
)
