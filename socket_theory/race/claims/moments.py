"""R2 and R3: the exact mean and second moment of a soft collision, and what a finite beta costs in bias."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.claim import Claim, Context, Measurement, combine, worst
from socket_theory.core.thresholds import bennett_radius, bounded_mean
from socket_theory.race.bounds.bias import first_order_bit_bias, kernel_bias_bound, uniform_kernel_bias_bound
from socket_theory.race.claims.tables import table_moments
from socket_theory.race.law import RaceKernel

Float = NDArray[np.float64]
Norms = tuple[float, float]
Bound = Callable[[RaceKernel, float, float], Float]
ANGLES = np.array([0.3, 0.8, 1.5, 2.4])
CASES = ((RaceKernel(1, 2.0), (1.3, 0.9)), (RaceKernel(3, 2.0), (8.0, 8.0)), (RaceKernel(4, 5.0), (0.7, 3.0)))
STEEP = RaceKernel(1, 20.0), (0.5, 40.0)
SHORT_QUERY = RaceKernel(1, 2.0), (0.3, 10.0), np.array([0.001, 0.4, 1.2])
GRID = np.linspace(0, np.pi, 31)
ASYMPTOTE = ((0.3, (2.0, 1.0)), (1.2, (2.0, 1.0)), (2.0, (1.0, 5.0)))
ROUNDING = 1e-10


def _moment_law(context: Context, power: int, law: Callable[[RaceKernel, Float, float, float], Float]) -> Measurement:
    """The mean of w^power against its law; a variable in [low, high] has variance <= (high - mean)(mean - low)."""
    parts = []
    for (kernel, norms), part in zip(CASES, context.split("one plane", "three", "four"), strict=True):
        (low, high), mean = np.array(kernel.weight_range()) ** power, law(kernel, ANGLES, *norms)
        moments = table_moments(part, kernel, ANGLES, norms, lambda weights: weights**power)
        parts.append(bounded_mean(moments, mean, (high - mean) * (mean - low), high - low, part.level()))
    return combine(*parts)


def _equal_projections(moment: Callable[..., Float]) -> Callable[[RaceKernel, Float, float, float], Float]:
    """The law with one Gaussian for both vectors, as at an angle of 0."""
    return lambda kernel, theta, *norms: moment(kernel, np.zeros_like(theta), *norms)


def _bias(context: Context, kernel: RaceKernel, theta: Float, norms: Norms, bound: Bound) -> Measurement:
    """|mean w - kappa_0| <= bound, from fresh tables."""
    uniform, hard, mean = bound(kernel, *norms), kernel.hard_kernel(theta), kernel.mean(theta, *norms)
    low, high = kernel.weight_range()
    moments = table_moments(context, kernel, theta, norms)
    radius = bennett_radius((high - mean) * (mean - low), high - low, moments.count, context.level(len(theta)))
    tightness = float(np.median(uniform / np.abs(mean - hard)))
    return worst(np.abs(moments.mean - hard), uniform + radius, tightness)


def _bias_check(context: Context) -> Measurement:
    *middle, short = context.split("one plane", "three", "four", "short query")
    parts = [
        _bias(part, kernel, ANGLES, norms, uniform_kernel_bias_bound)
        for part, (kernel, norms) in zip(middle, CASES, strict=True)
    ]
    kernel, norms, theta = SHORT_QUERY
    parts.append(_bias(short, kernel, theta, norms, uniform_kernel_bias_bound))
    for kernel, norms in CASES[1:]:
        bias, sharp = (
            np.abs(kernel.mean(GRID, *norms) - kernel.hard_kernel(GRID)),
            kernel_bias_bound(kernel, GRID, *norms),
        )
        parts.append(worst(bias, sharp + ROUNDING))
        parts.append(worst(sharp, uniform_kernel_bias_bound(kernel, *norms) + ROUNDING))
    kernel, norms = STEEP
    parts.append(worst(kernel_bias_bound(kernel, 0.0, *norms), uniform_kernel_bias_bound(kernel, *norms)))
    return combine(*parts)


def _key_alone(kernel: RaceKernel, query_norm: float, key_norm: float) -> Float:
    return np.asarray(kernel.num_planes * kernel.gap(key_norm))


def _bias_control(context: Context) -> Measurement:
    kernel, norms, theta = SHORT_QUERY
    short = context.split("one plane", "three", "four", "short query")[-1]
    return _bias(short, kernel, theta, norms, _key_alone)


def _asymptote(context: Context, both_sides: bool) -> Measurement:
    """The relative error of the first order falls by 3 and more as beta doubles, by 4 in the limit."""
    parts = []
    for theta, norms in ASYMPTOTE:
        betas = (8.0, 16.0, 32.0, 64.0)
        bias = np.array([1 - theta / np.pi - RaceKernel(1, beta).bit_mean(theta, *norms) for beta in betas])
        used = norms if both_sides else (norms[0], 1e150)
        error = np.abs(bias / np.array([first_order_bit_bias(beta, theta, *used) for beta in betas]) - 1)
        parts.append(worst(error[1:], error[:-1] / 3))
    return combine(*parts)


CLAIMS = (
    Claim(
        id="R2.mean",
        title="Soft-collision mean",
        statement="E <phi(q), phi(k)> = g^P with g = 1/2 + E[a b]/2, a = tanh(beta tanh(rho_q x)), "
        "b = tanh(beta tanh(rho_k y)), x and y standard normal with correlation cos theta: the kernel depends on the "
        "angle and on both lengths.",
        source="own derivation; R1 and independent planes",
        kind="mean",
        wrong="x = y, one projection for both vectors",
        check=partial(_moment_law, power=1, law=RaceKernel.mean),
        control=partial(_moment_law, power=1, law=_equal_projections(RaceKernel.mean)),
    ),
    Claim(
        id="R2.second-moment",
        title="Soft-collision second moment",
        statement="E <phi(q), phi(k)>^2 = (E[1 + 2 a b + a^2 b^2]/4)^P, a and b as in R2.mean.",
        source="own derivation, as R2.mean",
        kind="mean",
        wrong="x = y, one projection for both vectors",
        check=partial(_moment_law, power=2, law=RaceKernel.second_moment),
        control=partial(_moment_law, power=2, law=_equal_projections(RaceKernel.second_moment)),
    ),
    Claim(
        id="R3.bias",
        title="Bias of a finite beta",
        statement="|kappa - kappa_0| <= P max(g, 1 - theta/pi)^(P-1) |g - (1 - theta/pi)| <= "
        "P (eps(rho_q) + eps(rho_k)) with eps(rho) = E sigma(-2 beta |tanh(rho x)|), at every angle.",
        source="own proof; a bit is at most the sum of both sides' soft parts off the hard one",
        kind="inequality",
        wrong="eps of the key alone, at a short query and a long key",
        check=_bias_check,
        control=_bias_control,
    ),
    Claim(
        id="R3.first-order",
        title="Bias at large beta",
        statement="At a fixed angle, (1 - theta/pi) - g = (pi/24) cot(theta) (rho_q^-2 + rho_k^-2)/beta^2 "
        "(1 + O(beta^-2)): the bias is of second order where its bound is of first.",
        source="own proof; dominated convergence",
        kind="inequality",
        wrong="the query's term alone",
        check=partial(_asymptote, both_sides=True),
        control=partial(_asymptote, both_sides=False),
    ),
)
