"""What claims about one entry share: a query, keys at given angles, and their weights in fresh tables."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import ArrayLike, NDArray

from socket_theory.core.claim import Context
from socket_theory.core.thresholds import Moments
from socket_theory.race.bit import steep
from socket_theory.race.law import RaceKernel

Float = NDArray[np.float64]
HEAD_DIM, TABLES_AT_ONCE = 2, 20_000


def query_and_keys(
    rng: np.random.Generator, theta: ArrayLike, query_norm: float, key_norm: float
) -> tuple[Float, Float]:
    """A randomly turned query of length `query_norm` and keys of length `key_norm` at `theta` [N] -> [D], [N, D].

    D = 2, since of a Gaussian plane only its projection on the plane of query and key enters one weight.
    """
    angle = np.asarray(theta, dtype=float)[:, None]
    along, across = np.linalg.qr(rng.standard_normal((HEAD_DIM, 2)))[0].T
    return query_norm * along, key_norm * (np.cos(angle) * along + np.sin(angle) * across)


def table_weights(query: Float, keys: Float, kernel: RaceKernel, count: int, rng: np.random.Generator) -> Float:
    """w = prod_p (1 + a_p b_p)/2 in `count` fresh tables: query [D], keys [N, D] -> [count, N]."""
    planes = rng.standard_normal((count, kernel.num_planes, HEAD_DIM))
    asked, held = steep(kernel.beta, planes @ query), steep(kernel.beta, planes @ keys.T)
    return np.asarray(np.prod((1 + asked[..., None] * held) / 2, axis=1))


def table_moments(
    context: Context,
    kernel: RaceKernel,
    theta: Float,
    norms: tuple[float, float],
    statistic: Callable[[Float], Float] = lambda weights: weights,
) -> Moments:
    """Of statistic(weights [tables, N]) of fresh tables, for keys at `theta` [N] and lengths of query and keys."""
    query, keys = query_and_keys(context.generator(), theta, *norms)
    batches = context.batches(context.samples(TABLES_AT_ONCE), TABLES_AT_ONCE)
    weights = (table_weights(query, keys, kernel, count, key.generator()) for key, count in batches)
    return reduce(add, (Moments.of(statistic(batch)) for batch in weights))


def mean_weights(
    context: Context, kernel: RaceKernel, theta: Float, norms: tuple[float, float], tables: int, trials: int
) -> Float:
    """w-bar over `tables` tables of keys at `theta` [N], in independent trials -> [trials, N]."""
    query, keys = query_and_keys(context.generator(), theta, *norms)
    means = []
    for key, count in context.batches(trials, max(1, TABLES_AT_ONCE // tables)):
        weights = table_weights(query, keys, kernel, count * tables, key.generator())
        means.append(weights.reshape(count, tables, -1).mean(axis=1))
    return np.concatenate(means)
