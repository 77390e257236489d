"""S14: how often finite tables misrank keys, and the tables that top-k recall needs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from socket_theory.bounds.ranking import misrank_bernstein, misrank_hoeffding, misrank_hoeffding_range, recall_tables
from socket_theory.core.claim import Claim, Context, Measurement, combine
from socket_theory.core.thresholds import failure_rate
from socket_theory.socket_lsh.claims.instances import angle_between, mean_weights
from socket_theory.socket_lsh.law import SoftKernel

Float = NDArray[np.float64]
Pair = tuple[SoftKernel, float, tuple[float, float], float, int, int]  # the last: trials at quick
Case = tuple[SoftKernel, float, Float, int, float, float, int]  # k, recall, delta, trials at quick
MisrankBound = Callable[[Pair], float]
HEAD_DIM = 8
_HOT: Pair = (SoftKernel(3, 2.0, "tanh", HEAD_DIM), 4.0, (0.6, 1.0), 0.0, 30, 1500)
_COLD: Pair = (SoftKernel(1, 0.05, "tanh", HEAD_DIM), 6.0, (0.8, 1.0), 0.0, 200, 1500)
_COIN, _COIN_ANGLES = SoftKernel(1, 0.001, "tanh", 3), (np.pi * 3 / 8, np.pi * 5 / 8)
_OPPOSITE: Pair = (_COIN, 6.0, _COIN_ANGLES, -1.0, 100, 12_000)
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
    return float(misrank_bernstein(_gap(pair), tables, variance))


def _recall(context: Context, case: Case, forgotten: int) -> Measurement:
    """How often top-k recall is below r, at the tables of S14 times Delta^forgotten."""
    kernel, norm, angles, k, recall, delta, trials = case
    means = kernel.mean(angles, norm)
    wanted = int(np.ceil(recall * k))
    tables = round(recall_tables(means, k, recall, delta) * (means[wanted - 1] - means[k]) ** forgotten)
    residuals = [[1.0], [-1.0]] if case is _OPPOSITE_KEYS else None
    scores = mean_weights(context, kernel, norm, angles, tables, trials := context.samples(trials), residuals)
    found = np.count_nonzero(np.argsort(-scores, axis=1)[:, :k] < k, axis=1)
    return failure_rate(int(np.count_nonzero(found < wanted)), trials, delta, context.level())


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
        source="Hoeffding 1963, for w_a - w_b in [-1, 1]",
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
        statement="P(w-bar_a <= w-bar_b) <= exp(-L Delta^2 / (2 (Var(w_a - w_b) + (1 + Delta) Delta/3))).",
        source="Bernstein's inequality with the exact variance of S15",
        kind="tail",
        wrong="Delta in place of Delta^2",
        check=partial(_misranking_check, bound=_bernstein),
        control=partial(_misranking_control, bound=_bernstein),
    ),
    Claim(
        id="S14.recall",
        title="Tables for recall",
        statement="With m = ceil(r k) and Delta = kappa_(m) - kappa_(k+1) > 0, L >= (2/Delta^2) ln(m (N-k)/delta) "
        "tables give top-k recall of at least r with probability 1 - delta.",
        source="S14.hoeffding and a union bound over m (N - k) pairs",
        kind="tail",
        wrong="Delta in place of Delta^2",
        check=_recall_check,
        control=_recall_control,
    ),
)
