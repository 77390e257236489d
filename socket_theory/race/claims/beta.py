"""R10: which beta gives an entry of L tables the least mean square error against the angular kernel."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from scipy.optimize import minimize_scalar

from socket_theory.core.claim import Claim, Context, Measurement, combine, worst
from socket_theory.core.thresholds import Moments, bennett_radius
from socket_theory.race.bounds.beta import mean_square_error, optimal_beta
from socket_theory.race.bounds.bias import uniform_kernel_bias_bound
from socket_theory.race.claims.tables import mean_weights
from socket_theory.race.law import RaceKernel

NUM_PLANES, NUM_TABLES, ANGLE, TRIALS = 3, 16, 1.2, 4000
NORMS = ((1.0, 1.0), (8.0, 8.0))
RIVALS, NEAR = (1 / 16, 1 / 2, 2.0), (0.9, 1.1)


def _by_bound(num_tables: int, num_planes: int, theta: float, query_norm: float, key_norm: float) -> float:
    """The beta that minimises (P (eps(rho_q) + eps(rho_k)))^2 + Var w / L."""

    def objective(log_beta: float) -> float:
        kernel = RaceKernel(num_planes, math.exp(log_beta))
        bound = uniform_kernel_bias_bound(kernel, query_norm, key_norm)
        return float(bound**2 + kernel.variance(theta, query_norm, key_norm) / num_tables)

    return math.exp(minimize_scalar(objective, bounds=(0.0, math.log(1e4)), method="bounded").x)


def _error_spread(kernel: RaceKernel, norms: tuple[float, float]) -> tuple[float, float]:
    """A bound on Var (w-bar - kappa_0)^2, and on its range.

    With c the bias and e = w-bar - kappa, E e^4 <= (r^2 v + 3 (L - 1) v^2)/L^3 and |E e^3| <= r v/L^2 for weights of
    range r and variance v.
    """
    mean, hard = float(kernel.mean(ANGLE, *norms)), float(kernel.hard_kernel(ANGLE))
    variance, (low, high) = float(kernel.variance(ANGLE, *norms)), kernel.weight_range()
    bias, spread, count = mean - hard, high - low, NUM_TABLES
    fourth = (spread**2 * variance + 3 * (count - 1) * variance**2) / count**3
    third, second = spread * variance / count**2, variance / count
    square = fourth + 4 * abs(bias) * third + 6 * bias**2 * second + bias**4
    return square - (second + bias**2) ** 2, max(hard - low, high - hard) ** 2


def _measured(context: Context, beta: float, norms: tuple[float, float]) -> tuple[float, float]:
    """The mean of (w-bar - kappa_0)^2 over fresh tables, and the radius that Bennett's inequality gives it."""
    kernel, theta = RaceKernel(NUM_PLANES, beta), np.array([ANGLE])
    trials = context.samples(TRIALS)
    estimates = mean_weights(context, kernel, theta, norms, NUM_TABLES, trials)[:, 0]
    squares = Moments.of((estimates - kernel.hard_kernel(ANGLE)) ** 2)
    variance, bound = _error_spread(kernel, norms)
    return float(squares.mean), float(bennett_radius(variance, bound, trials, context.level()))


def _exact(beta: float, norms: tuple[float, float]) -> float:
    return float(mean_square_error(RaceKernel(NUM_PLANES, beta), NUM_TABLES, ANGLE, *norms))


def _least_error(context: Context, exact_bias: bool) -> Measurement:
    """No other beta has less error, by the exact law and in fresh tables; and measured errors are the exact ones."""
    parts = []
    for norms, part in zip(NORMS, context.split("short", "long"), strict=True):
        choose = optimal_beta if exact_bias else _by_bound
        best = choose(NUM_TABLES, NUM_PLANES, ANGLE, *norms)
        betas = [best * factor for factor in (1.0, *RIVALS)]
        tags = part.split(*(f"beta {place}" for place in range(len(betas))))
        means, radii = np.transpose([_measured(tag, b, norms) for tag, b in zip(tags, betas, strict=True)])
        parts += [
            worst(np.abs(means - [_exact(b, norms) for b in betas]), radii),
            worst(_exact(best, norms), [_exact(best * factor, norms) for factor in (*RIVALS, *NEAR)]),
            worst(means[0], means[1:] + radii[1:] + radii[0]),
        ]
    return combine(*parts)


CLAIMS = (
    Claim(
        id="R10",
        title="Best beta",
        statement="E (w-bar - kappa_0)^2 = (g^P - kappa_0)^2 + Var w / L, and no beta has less of it than the one "
        "that minimises this sum of exact moments.",
        source="own derivation; R2",
        kind="mean",
        wrong="the bound of R3 in place of the bias, which asks for a beta twenty and more times as large",
        check=partial(_least_error, exact_bias=True),
        control=partial(_least_error, exact_bias=False),
    ),
)
