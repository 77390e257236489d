"""Moments of the table residual X = sum_i w_i (v_i - y_tau), which S9's moment forms need.

Second moments are exact by quadrature over all pairs of keys, in a few seconds for 512 of them; beyond that, and for
the fourth moment at any size, spare tables estimate them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from socket_theory.bounds.residual import ResidualMoments
from socket_theory.core.arguments import Float, require_rows
from socket_theory.core.checks import require_count, require_numbers
from socket_theory.socket_lsh.collisions import log_soft_collisions
from socket_theory.socket_lsh.law import SoftKernel

_CHUNK_TABLES = 64
_CHUNK_ROWS = 512


def weight_covariance(kernel: SoftKernel, theta: Float, pair_theta: Float, query_norm: float) -> Float:
    """Cov(w_i, w_j) of every pair of keys in one table, exact by quadrature (S15).

    Shapes: theta [N] to the query, pair_theta [N, N] between keys -> [N, N].
    """
    count = len(theta)
    if pair_theta.shape != (count, count):
        raise ValueError(
            f"pair_theta has shape {pair_theta.shape}: pass [{count}, {count}], one row for each of theta."
        )
    covariance = np.diag(kernel.variance(theta, query_norm))
    first, second = np.triu_indices(count, 1)
    pairs = kernel.covariance(theta[first], theta[second], pair_theta[first, second], query_norm)
    covariance[first, second] = covariance[second, first] = pairs
    return covariance


def residual_covariance(covariance: Float, residuals: Float) -> Float:
    """Sigma = U' C U; its trace is s^2, and the sum of its squared entries tr Sigma^2.

    Shapes: covariance C [N, N] of the weights, residuals U [N, E] = v_i - y_tau -> [E, E].
    """
    return np.asarray(residuals.T @ covariance @ residuals)


def table_residuals(
    mapped: Float, codes: NDArray[np.uint16], temperature: float, values: Float, target: Float
) -> tuple[Float, Float]:
    """X_l(target) = sum_i w_i^(l) (v_i - target) and Z_l = sum_i w_i^(l), table by table.

    Shapes: mapped query [L, P], codes [L, N], values [N, E], target [E] -> [L, E], [L].
    """
    residuals, masses = np.empty((len(codes), values.shape[1])), np.empty(len(codes))
    for start in range(0, len(codes), _CHUNK_TABLES):
        tables = slice(start, start + _CHUNK_TABLES)
        weights = np.exp(log_soft_collisions(mapped[tables], codes[tables], temperature))
        masses[tables] = weights.sum(axis=1)
        residuals[tables] = weights @ (values - target)
    return residuals, masses


def spare_table_moments(residuals: Float, deviations: float) -> ResidualMoments:
    """Each moment estimated without bias from spare tables, plus `deviations` of its estimated standard errors.

    The confidence is asymptotic, not a theorem: about normal_cdf(deviations) a moment. Tables that shaped y_tau, or the
    estimate that is being bounded, are not spare. tr Sigma^2 is a U-statistic: the mean of <X_l, X_m>^2 over l != m.

    Shapes: residuals [L, E] = X_l(y_tau) with the exact y_tau, L >= 2.

    Raises
    ------
    ValueError
        For fewer than 2 tables, residuals that are not [L, E], or NaN.
    """
    residuals = require_rows("residuals", residuals)
    if require_numbers("deviations", deviations).ndim or not np.isfinite(deviations):
        raise ValueError(f"deviations={deviations!r} was given: pass a finite number of standard errors.")
    count = require_count("the number of spare tables", len(residuals), least=2)
    square = np.einsum("le,le->l", residuals, residuals)
    partners = np.empty(count)
    for start in range(0, count, _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        partners[rows] = ((residuals[rows] @ residuals.T) ** 2).sum(axis=1)
    partners = (partners - square**2) / (count - 1)

    def upper(terms: Float, order: int) -> float:
        return float(terms.mean() + deviations * order * terms.std(ddof=1) / np.sqrt(count))

    return ResidualMoments(upper(square, 1), upper(partners, 2), upper(square**2, 1))
