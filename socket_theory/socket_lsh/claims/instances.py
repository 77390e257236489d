"""Instances that claims share: keys at given angles to a query, and weights of fresh tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from socket_theory.core.claim import Context
from socket_theory.core.hashing import Planes, apply_query_map, hash_keys, project_query
from socket_theory.socket_lsh.collisions import log_soft_collisions
from socket_theory.socket_lsh.law import SoftKernel

Float = NDArray[np.float64]
TABLES_AT_ONCE = 40_000


def query_and_keys(
    rng: np.random.Generator, head_dim: int, query_norm: float, angles: ArrayLike, residuals: ArrayLike | None = None
) -> tuple[Float, Float]:
    """A randomly turned query of length `query_norm` and unit keys at `angles` [N] to it -> [D], [N, D].

    The parts of the keys orthogonal to the query have directions `residuals` [N, R], orthogonal to each other by
    default. Dense coordinates, so that planes rounded to bfloat16 tie with probability zero.
    """
    theta = np.asarray(angles, dtype=float)[:, None]
    directions = np.eye(len(theta)) if residuals is None else np.asarray(residuals, dtype=float)
    basis = np.linalg.qr(rng.standard_normal((head_dim, 1 + directions.shape[1])))[0].T
    return query_norm * basis[0], np.cos(theta) * basis[0] + np.sin(theta) * (directions @ basis[1:])


def table_weights(query: Float, keys: Float, kernel: SoftKernel, count: int, rng: np.random.Generator) -> Float:
    """w_i^(l) of `count` fresh tables of Gaussian planes: query [D], keys [N, D] -> [count, N]."""
    planes = Planes(rng.standard_normal((count, kernel.num_planes, len(query))))
    mapped = apply_query_map(project_query(query, planes), kernel.query_map, len(query))
    return np.exp(log_soft_collisions(mapped, hash_keys(keys, planes), kernel.temperature))


def angle_between(theta_a: float, theta_b: float, correlation: float = 0.0) -> float:
    """The angle between keys whose parts orthogonal to the query have this correlation."""
    along, across = np.cos(theta_a) * np.cos(theta_b), np.sin(theta_a) * np.sin(theta_b)
    return float(np.arccos(np.clip(along + correlation * across, -1, 1)))


def mean_weights(
    context: Context,
    kernel: SoftKernel,
    norm: float,
    angles: ArrayLike,
    tables: int,
    trials: int,
    residuals: ArrayLike | None = None,
) -> Float:
    """w-bar over `tables` tables of keys at `angles` [N], in independent trials -> [trials, N]."""
    query, keys = query_and_keys(context.generator(), kernel.head_dim, norm, angles, residuals)
    means = []
    for key, count in context.batches(trials, max(1, TABLES_AT_ONCE // tables)):
        weights = table_weights(query, keys, kernel, count * tables, key.generator())
        means.append(weights.reshape(count, tables, -1).mean(axis=1))
    return np.concatenate(means)
