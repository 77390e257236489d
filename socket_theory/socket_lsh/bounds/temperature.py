"""What a temperature above 0 costs in bias: on one kernel value (S6), and on the attention output (S11)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from socket_theory.core.arguments import Float, moderate_number, require_above_zero, require_nonnegative
from socket_theory.core.checks import require_count
from socket_theory.core.hashing import QueryMap
from socket_theory.socket_lsh.law import SoftKernel


def kernel_bias_bound(kernel: SoftKernel, theta: ArrayLike, query_norm: ArrayLike) -> Float:
    """|kappa_tau - kappa_0| <= P max(mu, 1 - theta/pi)^(P-1) |mu - (1 - theta/pi)|, from the exact mu (S6).

    Assumes Gaussian planes. Shapes: theta, query_norm broadcast -> [...].
    """
    soft, hard = kernel.bit_mean(theta, query_norm), 1 - np.asarray(theta, dtype=np.float64) / np.pi
    return np.asarray(kernel.num_planes * np.maximum(soft, hard) ** (kernel.num_planes - 1) * np.abs(soft - hard))


def uniform_kernel_bias_bound(kernel: SoftKernel, query_norm: ArrayLike) -> Float:
    """|kappa_tau - kappa_0| <= P eps_tau(rho) at every angle, eps_tau = E sigma(-2|h|/tau) (S6)."""
    return np.asarray(kernel.num_planes * kernel.temperature_gap(query_norm))


def temperature_for_bias(
    target: float, query_norm: float, num_planes: int, query_map: QueryMap, head_dim: int
) -> float:
    """The largest tau with `uniform_kernel_bias_bound` <= target; infinity from target = P/2, which every tau meets.

    Raises
    ------
    ValueError
        If target or query_norm is not in [1e-150, 1e150]: a zero query has eps = 1/2 at every temperature.
    """
    from scipy.optimize import brentq

    goal, norm = moderate_number("target", target), moderate_number("query_norm", query_norm)
    if goal >= require_count("num_planes", num_planes) / 2:
        return math.inf

    def excess(log_temperature: float) -> float:
        kernel = SoftKernel(num_planes, math.exp(log_temperature), query_map, head_dim)
        return math.log(float(uniform_kernel_bias_bound(kernel, norm))) - math.log(goal)

    low = math.log(norm) + math.log(goal / num_planes)
    while excess(low) > 0:
        low -= 1
    high = low
    while excess(high) < 0:
        high += 1
    return math.exp(brentq(excess, low, high, xtol=1e-13))


def output_bias_bound(soft: ArrayLike, hard: ArrayLike, value_radius: float) -> Float:
    """|y_tau - y*| <= (D*/Z_tau) sum_i |kappa_tau,i - kappa_0,i|, D* = max |v_i - y*| (S11, sum form).

    Deterministic. Shapes: soft and hard [..., N], the kernel values of the keys -> [...].
    """
    kappa, target = require_nonnegative("soft", soft), require_nonnegative("hard", hard)
    mass = require_above_zero("the sum of soft", kappa.sum(axis=-1))
    return np.asarray(require_nonnegative("value_radius", value_radius) * np.abs(kappa - target).sum(axis=-1) / mass)


def uniform_output_bias_bound(
    kernel: SoftKernel, query_norm: float, num_keys: int, mass: float, value_radius: float
) -> Float:
    """|y_tau - y*| <= D* N P eps_tau / Z_tau, which needs no angle but in Z_tau = `mass` (S11, epsilon form)."""
    radius = require_nonnegative("value_radius", value_radius)
    total = require_count("num_keys", num_keys) * uniform_kernel_bias_bound(kernel, query_norm)
    return np.asarray(radius * total / require_above_zero("mass", mass))
