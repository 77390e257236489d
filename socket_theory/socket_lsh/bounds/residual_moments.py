"""What the moments of the table residual X = sum_i w_i (v_i - y_tau) are made of, which S9's moment forms need.

Second moments are exact by quadrature over all pairs of keys, in a few seconds for 512 of them; beyond that, and for
the fourth moment at any size, spare tables estimate them (`bounds.residual`), or bound the error itself without them
(`bounds.spare_sets`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.arguments import Float
from socket_theory.socket_lsh.collisions import soft_collisions
from socket_theory.socket_lsh.law import SoftKernel

_CHUNK_TABLES = 64


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


def table_residuals(
    mapped: Float, codes: NDArray[np.uint16], temperature: float, values: Float, target: Float
) -> tuple[Float, Float]:
    """X_l(target) = sum_i w_i^(l) (v_i - target) and Z_l = sum_i w_i^(l), table by table.

    Shapes: mapped query [L, P], codes [L, N], values [N, E], target [E] -> [L, E], [L].
    """
    residuals, masses = np.empty((len(codes), values.shape[1])), np.empty(len(codes))
    for start in range(0, len(codes), _CHUNK_TABLES):
        tables = slice(start, start + _CHUNK_TABLES)
        weights = soft_collisions(mapped[tables], codes[tables], temperature)
        masses[tables] = weights.sum(axis=1)
        residuals[tables] = weights @ (values - target)
    return residuals, masses
