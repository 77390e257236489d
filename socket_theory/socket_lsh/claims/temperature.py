"""S15: the pair moment of two keys in one table, and how the temperature decides the tables that ranking needs."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy.special import ndtr

from socket_theory.bounds.large_deviations import BERRY_ESSEEN
from socket_theory.core.claim import Claim, Context, Measurement, combine, worst
from socket_theory.core.thresholds import Moments, bennett_radius, bounded_mean
from socket_theory.socket_lsh.bounds.temperature_choice import signal_to_noise
from socket_theory.socket_lsh.claims.instances import (
    TABLES_AT_ONCE,
    angle_between,
    mean_weights,
    query_and_keys,
    table_weights,
)
from socket_theory.socket_lsh.law import SoftKernel

HEAD_DIM = 8


def _pair_moment(context: Context, correlation_known: bool) -> Measurement:
    """E[w_a w_b] of two keys with correlated residuals; its variance is at most (top - mean)(mean - bottom)."""
    theta_a, theta_b, norm, correlation = 0.8, 1.0, 4.0, 0.9
    residuals = [[1, 0], [correlation, np.sqrt(1 - correlation**2)]]
    cases = (SoftKernel(2, 0.4, "tanh", HEAD_DIM), SoftKernel(4, 1.0, "tanh_scaled", HEAD_DIM))
    parts = []
    for kernel, part in zip(cases, context.split("documented map", "released map"), strict=True):
        query, keys = query_and_keys(part.generator(), HEAD_DIM, norm, (theta_a, theta_b), residuals)
        batches = part.batches(part.samples(TABLES_AT_ONCE), TABLES_AT_ONCE)
        products = (table_weights(query, keys, kernel, count, key.generator()).prod(axis=1) for key, count in batches)
        moments = sum((Moments.of(batch) for batch in products), start=Moments(0, np.zeros(()), np.zeros(())))
        between = angle_between(theta_a, theta_b, correlation if correlation_known else 0.0)
        mean = float(kernel.pair_moment(theta_a, theta_b, between, norm))
        bottom, top = np.square(kernel.weight_range())
        parts.append(bounded_mean(moments, mean, (top - mean) * (mean - bottom), top - bottom, part.level()))
    return combine(*parts)


def _tables_for_accuracy(context: Context, exponent: int) -> Measurement:
    """(z / SNR)^2 tables misrank a pair with probability Phi(-z), up to the Berry-Esseen error of a CLT.

    That error hides a wrong SNR, so E(w_a - w_b)^2 = Delta^2 (1 + SNR^-2) is checked too, in single tables.
    """
    cases = (
        (SoftKernel(1, 0.05, "tanh", HEAD_DIM), 6.0, (0.8, 1.0)),
        (SoftKernel(3, 3.0, "tanh", HEAD_DIM), 4.0, (0.9, 1.0)),
    )
    parts = []
    for (kernel, norm, angles), part in zip(cases, context.split("cold", "hot"), strict=True):
        snr = float(signal_to_noise(kernel, *angles, angle_between(*angles), norm))
        gap, (bottom, top), aim = float(kernel.mean_difference(*angles, norm)), kernel.weight_range(), 200
        score = snr * np.sqrt(aim)
        single, paired = part.split("single tables", "rankings")
        differences = mean_weights(single, kernel, norm, angles, 1, single.samples(TABLES_AT_ONCE)) @ [1.0, -1.0]
        square, top_square = gap**2 * (1 + snr**-2), (top - bottom) ** 2
        moments, spread = Moments.of(differences**2), (top_square - square) * square
        parts.append(bounded_mean(moments, square, max(spread, 0.0), top_square, single.level()))
        tables = max(1, round(score**2 * snr**exponent))
        trials = paired.samples(1000)
        near, far = mean_weights(paired, kernel, norm, angles, tables, trials).T
        skewness = (top - bottom + gap) * snr / gap
        allowed = BERRY_ESSEEN * skewness / np.sqrt(aim) + bennett_radius(0.25, 1.0, trials, paired.level())
        parts.append(worst(abs(np.mean(near <= far) - ndtr(-score)), allowed))
    return combine(*parts)


CLAIMS = (
    Claim(
        id="S15.pair-moment",
        title="Pair moment",
        statement="E[w_a w_b] in one table is the P-th power of a one-dimensional integral of orthant probabilities, "
        "which depends on the angle between the keys as well as on their angles to the query.",
        source="own derivation; orthants by Owen's T",
        kind="mean",
        wrong="the correlation of the keys' residuals ignored",
        check=partial(_pair_moment, correlation_known=True),
        control=partial(_pair_moment, correlation_known=False),
    ),
    Claim(
        id="S15.tables",
        title="Temperature law",
        statement="With SNR = (kappa_a - kappa_b)/sd(w_a - w_b) per table, (z/SNR)^2 tables misrank a pair with "
        "probability Phi(-z): the temperature acts through SNR alone. A central limit law, not a bound.",
        source="Berry-Esseen theorem, constant of Shevtsova 2011",
        kind="mean",
        wrong="SNR^2 in place of SNR^-2",
        check=partial(_tables_for_accuracy, exponent=-2),
        control=partial(_tables_for_accuracy, exponent=2),
    ),
)
