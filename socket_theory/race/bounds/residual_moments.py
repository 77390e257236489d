"""The covariance of two keys' weights in one table, which the moment forms of S9 need of RACE (R5).

Given the query's projection x, key i has the projection rho_i (x cos theta_i + e_i sin theta_i) with e_i standard
normal, and e_i, e_j have a correlation r. With h_n the orthonormal Hermite polynomials, f_i(x, e) = b_i and
f_in(x) = E[f_i(x, e) h_n(e)], Mehler's formula is E[b_i b_j | x] = sum_n r^n f_in f_jn, and by Cauchy-Schwarz what
follows term n is at most |r|^(n + 1) times the root of what follows it in E b_i^2 = sum_n f_in^2, times that of j.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.arguments import require_nonnegative
from socket_theory.core.checks import require_angle
from socket_theory.core.power import power_step
from socket_theory.core.quadrature import half_normal_rule
from socket_theory.race.bit import products, steep
from socket_theory.race.law import RaceKernel

Float = NDArray[np.float64]
_FURTHEST, _COARSEST, _FINEST = 9.5, 0.08, 1e-9
_MOST_TERMS, _MOST_NODES = 300, 2**25
_REMAINDER, _PARALLEL = 1e-10, 1e-12


def weight_covariance(
    kernel: RaceKernel, theta: Float, pair_theta: Float, query_norm: float, key_norms: Float
) -> Float:
    """Cov(w_i, w_j) of every pair of keys for one query in one table, to 1e-9 by quadrature.

    Shapes: theta [N] to the query, pair_theta [N, N] between keys, key_norms [N] -> [N, N].

    Raises
    ------
    ValueError
        For other shapes, numbers out of range, or a pair that the series does not reach: keys that are nearly, but not
        exactly, parallel or opposite at a beta * norm of 8 and more. `bounds.residual.spare_table_moments` takes any.
    """
    angle, length = require_angle("theta", theta), require_nonnegative("key_norms", key_norms)
    between, count = require_angle("pair_theta", pair_theta), len(angle)
    if angle.ndim != 1 or between.shape != (count, count) or length.shape != (count,):
        raise ValueError(
            f"theta has shape {angle.shape}, pair_theta {between.shape} and key_norms {length.shape}: "
            "pass [N], [N, N] and [N]."
        )
    first, _ = products(kernel.beta, angle, query_norm, length)
    bits = (_pair_products(kernel.beta, angle, between, query_norm, length) - np.outer(first, first)) / 4
    means = (1 + first) / 2
    covariance = power_step(np.outer(means, means), bits, kernel.num_planes)
    np.fill_diagonal(covariance, kernel.variance(angle, query_norm, length))
    return covariance


def _pair_products(beta: float, theta: Float, between: Float, query_norm: float, norms: Float) -> Float:
    """E[a^2 b_i b_j] for i != j; the diagonal is left to the law of one key."""
    cosine, sine = np.cos(theta), np.sin(theta)
    across = np.maximum(np.outer(sine, sine), np.finfo(float).tiny)
    correlation = np.clip((np.cos(between) - np.outer(cosine, cosine)) / across, -1, 1)
    np.fill_diagonal(correlation, 0.0)
    x, weights, e, density = _nodes(beta, cosine, sine, query_norm, norms)
    f = steep(beta, norms[:, None, None] * (x[:, None] * cosine[:, None, None] + e * sine[:, None, None]))
    weights = weights * steep(beta, query_norm * x) ** 2
    left = (f**2 @ density) @ weights
    total, power = np.zeros_like(between), np.ones_like(between)
    before, hermite = np.zeros_like(e), np.ones_like(e)
    for n in range(_MOST_TERMS):
        part = f @ (hermite * density)
        total += power * ((part * weights) @ part.T)
        left = np.maximum(left - part**2 @ weights, 0.0)
        power *= correlation
        open_pairs = np.abs(power) * np.sqrt(np.outer(left, left)) > _REMAINDER
        if not open_pairs.any():
            break
        before, hermite = hermite, (e * hermite - math.sqrt(n) * before) / math.sqrt(n + 1)
    for sign in (1, -1):
        parallel = open_pairs & (sign * correlation >= 1 - _PARALLEL)
        for i, j in np.argwhere(parallel):
            total[i, j] = weights @ (f[i] * f[j, :, ::sign]) @ density
        open_pairs &= ~parallel
    if open_pairs.any():
        i, j = np.argwhere(open_pairs)[0]
        raise ValueError(
            f"keys {i} and {j} are too near to parallel or opposite for beta={beta:g} and these norms: estimate their "
            "moments from tables, with bounds.residual.spare_table_moments."
        )
    return total


def _nodes(
    beta: float, cosine: Float, sine: Float, query_norm: float, norms: Float
) -> tuple[Float, Float, Float, Float]:
    """Nodes and weights of |x|, and of e by the trapezoid rule with steps of a quarter of the way to a pole of f."""
    pole = math.atan(math.pi / 2 / beta)
    step = min(_COARSEST, pole / 4 / max(1.0, float((norms * sine).max())))
    turn = min(1.0, pole / max(1.0, query_norm, float(norms.max())), max(float(sine.min()), _FINEST))
    x, weights = half_normal_rule(turn)
    count = math.ceil(_FURTHEST / step)
    if len(norms) * len(x) * 2 * count > _MOST_NODES:
        raise ValueError(
            f"beta={beta:g} with {len(norms)} keys of length {norms.max():g} needs more than {_MOST_NODES} nodes: pass "
            "fewer or shorter keys, or estimate moments from tables, with bounds.residual.spare_table_moments."
        )
    e: Float = step * np.arange(-count, count + 1, dtype=np.float64)
    return x, weights, e, np.asarray(step * np.exp(-(e**2) / 2) / math.sqrt(2 * math.pi))
