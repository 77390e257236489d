"""S4-S7: the exact mean and variance of a soft collision, what its temperature costs, and the order of its mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from operator import add

import numpy as np
from numpy.typing import NDArray
from scipy.special import zeta

from socket_theory.core.claim import Claim, Context, Measurement, combine, inequality, worst
from socket_theory.core.hashing import QUERY_MAPS
from socket_theory.core.thresholds import Moments, bennett_radius, bounded_mean
from socket_theory.socket_lsh.bounds.temperature import kernel_bias_bound, uniform_kernel_bias_bound
from socket_theory.socket_lsh.claims.instances import query_and_keys, table_weights
from socket_theory.socket_lsh.law import SoftKernel

Float = NDArray[np.float64]
HEAD_DIM, NORM, TABLES_AT_ONCE = 8, 6.0, 20_000
ANGLES = np.array([0.2, 0.8, 1.5, 2.4])
KERNELS = (
    SoftKernel(1, 0.4, "tanh", HEAD_DIM),
    SoftKernel(3, 1.0, "tanh_scaled", HEAD_DIM),
    SoftKernel(10, 1.0, "linear", HEAD_DIM),
)
STEEP = SoftKernel(1, 0.4, "tanh", HEAD_DIM), np.array([0.001, 0.01])
GRID = np.linspace(0, np.pi, 181)
ROUNDING = 1e-12


def _moments(
    context: Context,
    kernel: SoftKernel,
    angles: Float,
    statistic: Callable[[Float], Float],
    lengths: float | Float = 1.0,
) -> Moments:
    """Of statistic(weights [tables, N]) of fresh tables, for keys at `angles` [N] to a query of length NORM."""
    query, keys = query_and_keys(context.generator(), HEAD_DIM, NORM, angles)
    keys *= np.reshape(lengths, (-1, 1))
    batches = context.batches(context.samples(TABLES_AT_ONCE), TABLES_AT_ONCE)
    weights = (table_weights(query, keys, kernel, count, key.generator()) for key, count in batches)
    return reduce(add, (Moments.of(statistic(batch)) for batch in weights))


def _moment_law(context: Context, power: int, law: Callable[[SoftKernel], Float]) -> Measurement:
    """The mean of w^power against its law; a variable in [low, high] has variance <= (high - mean)(mean - low)."""
    parts = []
    for kernel, part in zip(KERNELS, context.split(*QUERY_MAPS), strict=True):
        (low, high), mean = np.array(kernel.weight_range()) ** power, law(kernel)
        moments = _moments(part, kernel, ANGLES, lambda weights: weights**power)
        parts.append(bounded_mean(moments, mean, (high - mean) * (mean - low), high - low, part.level()))
    return combine(*parts)


def _variance_bound(context: Context, mean: Callable[[SoftKernel, float], Float]) -> Measurement:
    """Var w <= kappa (1 - kappa) at random angles; and with `mean` as kappa near both ends."""
    theta = context.generator().uniform(0, np.pi, size=32)
    parts = []
    for kernel in KERNELS:
        variance, kappa = kernel.variance(theta, NORM), kernel.mean(theta, NORM)
        limit = kappa * (1 - kappa) * (1 + ROUNDING)
        parts.append(worst(variance, limit, float(np.median(limit / variance))))
    for num_planes, temperature, angle in ((1, 0.4, 0.01), (10, 0.4, 0.001), (10, 2.0, 3.0)):
        kernel = SoftKernel(num_planes, temperature, "tanh", HEAD_DIM)
        kappa = mean(kernel, angle)
        parts.append(worst(kernel.variance(angle, NORM), kappa * (1 - kappa)))
    return combine(*parts)


def _bias(context: Context, kernel: SoftKernel, angles: Float, factor: float) -> Measurement:
    """|mean w - kappa_0| <= factor P eps, from fresh tables."""
    uniform, hard, mean = uniform_kernel_bias_bound(kernel, NORM), kernel.hard_kernel(angles), kernel.mean(angles, NORM)
    low, high = kernel.weight_range()
    moments = _moments(context, kernel, angles, lambda weights: weights)
    radius = bennett_radius((high - mean) * (mean - low), high - low, moments.count, context.level(len(angles)))
    tightness = float(np.median(uniform / np.abs(mean - hard)))
    return worst(np.abs(moments.mean - hard), factor * uniform + radius, tightness)


def _bias_check(context: Context) -> Measurement:
    middle, end = context.split("middle", "end")
    parts = [_bias(middle, KERNELS[1], ANGLES, 1.0), _bias(end, *STEEP, 1.0)]
    for kernel in KERNELS:
        bias, sharp = np.abs(kernel.mean(GRID, NORM) - kernel.hard_kernel(GRID)), kernel_bias_bound(kernel, GRID, NORM)
        parts.append(worst(bias, sharp + ROUNDING))
        parts.append(worst(sharp, uniform_kernel_bias_bound(kernel, NORM) + ROUNDING))
    return combine(*parts)


def _bias_control(context: Context) -> Measurement:
    return _bias(context.split("middle", "end")[1], *STEEP, 0.5)


def _slope(context: Context, constant: float) -> Measurement:
    """0 <= constant tau/(rho sqrt(2 pi)) - eps <= its proved second term, for h = z at random tau/rho."""
    ratio = np.exp(context.generator().uniform(np.log(0.01), np.log(0.3), size=16))
    gaps = np.array([SoftKernel(1, r * NORM, "linear", HEAD_DIM).temperature_gap(NORM) for r in ratio])
    slope, second = constant * ratio / np.sqrt(2 * np.pi), 1.5 * zeta(3) * (ratio / 2) ** 3 / np.sqrt(2 * np.pi)
    return combine(inequality(slope - gaps, second + ROUNDING), worst(np.maximum(gaps - slope, 0), ROUNDING))


def _shape(context: Context) -> Measurement:
    """Angles on a grid where mu does not fall, or leaves [1/2, 1 - theta/pi] before pi/2; and mu of the supplement."""
    temperature = float(np.exp(context.generator().uniform(np.log(0.05), np.log(5))))
    parts, acute = [], GRID[: len(GRID) // 2 + 1]
    for query_map in QUERY_MAPS:
        mean = SoftKernel(1, temperature, query_map, HEAD_DIM).bit_mean(GRID, NORM)
        near = mean[: len(acute)]
        outside = (near < 0.5 - ROUNDING) | (near > 1 - acute / np.pi + ROUNDING)
        parts.append(worst(np.count_nonzero(np.diff(mean) >= 0) + np.count_nonzero(outside), 0))
        parts.append(worst(np.abs(mean + mean[::-1] - 1), ROUNDING))
    return combine(*parts)


def _order(context: Context, by_cosine: bool) -> Measurement:
    """Mean weights of fresh tables never contradict the criterion, on keys of unequal lengths; and `_shape`."""
    angles, lengths = np.array([0.3, 0.8, 1.3, 1.8, 2.3]), np.array([1.0, 8.0, 3.0, 0.5, 4.0])
    criterion = np.cos(angles) * (1 if by_cosine else lengths)
    above, below = np.nonzero(criterion[:, None] > criterion)
    parts = [_shape(context)]
    for query_map, part in zip(QUERY_MAPS, context.split(*QUERY_MAPS), strict=True):
        kernel = SoftKernel(2, 0.7, query_map, HEAD_DIM)
        moments = _moments(part, kernel, angles, lambda weights: weights[:, below] - weights[:, above], lengths)
        low, high = kernel.weight_range()
        radius = bennett_radius((high - low) ** 2, 2 * (high - low), moments.count, part.level(len(above)))
        parts.append(worst(np.maximum(moments.mean, 0), radius))
    return combine(*parts)


CLAIMS = (
    Claim(
        id="S4",
        title="Soft-collision mean",
        statement="E w = mu^P with mu = 1/2 + E[tanh(|h(rho g)|/tau) (2 Phi(|g| cot theta) - 1)]/2, g standard normal: "
        "the kernel depends on the query's length but not on the key's.",
        source="own derivation; given |g|, the signs agree with probability Phi(|g| cot theta)",
        kind="mean",
        wrong="a query of length 1 in place of rho = 6",
        check=partial(_moment_law, power=1, law=lambda kernel: kernel.mean(ANGLES, NORM)),
        control=partial(_moment_law, power=1, law=lambda kernel: kernel.mean(ANGLES, 1.0)),
    ),
    Claim(
        id="S5.second-moment",
        title="Soft-collision second moment",
        statement="E w^2 = nu^P, nu = E[1 + 2T(2m - 1) + T^2]/4, T = tanh(|h(rho g)|/tau), m = Phi(|g| cot theta).",
        source="own derivation, as S4",
        kind="mean",
        wrong="w^2 = w, which only a hard collision satisfies",
        check=partial(_moment_law, power=2, law=lambda kernel: kernel.second_moment(ANGLES, NORM)),
        control=partial(_moment_law, power=2, law=lambda kernel: kernel.mean(ANGLES, NORM)),
    ),
    Claim(
        id="S5.variance-bound",
        title="Variance at the same mean",
        statement="Var w <= kappa_tau (1 - kappa_tau), the variance of a hard collision of the same mean, not angle.",
        source="own proof; 0 <= w <= 1",
        kind="inequality",
        wrong="kappa_0 (1 - kappa_0), the hard variance at the same angle, near 0 and pi",
        check=partial(_variance_bound, mean=lambda kernel, theta: kernel.mean(theta, NORM)),
        control=partial(_variance_bound, mean=lambda kernel, theta: kernel.hard_kernel(theta)),
    ),
    Claim(
        id="S6.bias",
        title="Temperature bias of the kernel",
        statement="|kappa_tau - kappa_0| <= P max(mu, 1 - theta/pi)^(P-1) |mu - (1 - theta/pi)| <= P eps_tau with "
        "eps_tau = E sigma(-2|h(rho g)|/tau), at every angle.",
        source="own proof; a bit is sigma(-2|h|/tau) off the hard one; |a^P - b^P| <= P max(a, b)^(P-1) |a - b|",
        kind="inequality",
        wrong="eps_tau halved, at theta <= 0.01",
        check=_bias_check,
        control=_bias_control,
    ),
    Claim(
        id="S6.slope",
        title="Temperature bias, to first order",
        statement="With h = z and r = tau/rho, 0 <= r ln 2/sqrt(2 pi) - eps_tau <= (3 zeta(3)/16) r^3/sqrt(2 pi).",
        source="own proof; 1 - g^2/2 <= exp(-g^2/2) <= 1 under the integral",
        kind="inequality",
        wrong="1/2 in place of ln 2",
        check=partial(_slope, constant=float(np.log(2))),
        control=partial(_slope, constant=0.5),
    ),
    Claim(
        id="S7",
        title="Order",
        statement="mu strictly decreases in theta, mu(pi - theta) = 1 - mu(theta), and 1/2 <= mu <= 1 - theta/pi up to "
        "pi/2: in expectation SOCKET ranks by cosine, at every temperature.",
        source="own proof; Phi(|g| cot theta) decreases in theta for every g",
        kind="mean",
        wrong="the order of inner products, with keys of unequal lengths",
        check=partial(_order, by_cosine=True),
        control=partial(_order, by_cosine=False),
    ),
)
