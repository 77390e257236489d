"""Whole causal triangles for R6: keys and values of a sequence, every row's exact target, and tables on all rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.polynomial import Chebyshev
from numpy.typing import NDArray

from socket_theory.bounds.residual import ResidualMoments, spare_table_moments
from socket_theory.core.angular import angles
from socket_theory.core.claim import Context
from socket_theory.race.features import soft_buckets
from socket_theory.race.law import RaceKernel

Float = NDArray[np.float64]
TOKENS, HEAD_DIM, TABLES, LENGTH = 64, 64, 40, 8.0
KERNEL = RaceKernel(1, 2.0)
SPARE_TABLES, STANDARD_ERRORS, TABLES_AT_ONCE, DEGREE = 4000, 6.0, 4000, 24


@dataclass(frozen=True, eq=False)
class Triangle:
    """query and keys [N, D] of one length, and values [N, E]; a kernel, and the tables of a set."""

    query: Float
    keys: Float
    values: Float
    kernel: RaceKernel = KERNEL
    tables: int = TABLES

    @cached_property
    def kernel_values(self) -> Float:
        """kappa_tj for j <= t, else 0 [N, N], by a polynomial through the quadrature at 25 angles: exact to 1e-12."""
        theta, length = angles(self.query, self.keys), float(np.linalg.norm(self.query[0]))
        ends = [theta.min(), theta.max()]
        through = Chebyshev.interpolate(lambda x: self.kernel.mean(x, length, length), DEGREE, ends)
        return np.tril(through(theta))

    @cached_property
    def targets(self) -> Float:
        """O*_t [N, E]."""
        return np.asarray(self.kernel_values @ self.values / self.kernel_values.sum(axis=1, keepdims=True))

    @cached_property
    def distances(self) -> Float:
        """|v_j - O*_t| for j <= t, else 0 [N, N]."""
        return np.tril(np.linalg.norm(self.values - self.targets[:, None], axis=-1))

    def sums(self, count: int, rng: np.random.Generator) -> tuple[Float, Float]:
        """X_t [count, N, E] and Z_t [count, N] of every row in `count` fresh tables, by sums over prefixes."""
        planes = rng.standard_normal((count, self.kernel.num_planes, self.query.shape[1]))
        rows, beta = (self.query, self.keys), self.kernel.beta
        asked, held = (np.swapaxes(soft_buckets(vectors, planes, beta), 0, 1) for vectors in rows)
        mass = (asked * np.cumsum(held, axis=1)).sum(axis=-1)
        seen = np.cumsum(held[..., None] * self.values[:, None], axis=1)
        return np.einsum("ltr,ltre->lte", asked, seen) - mass[..., None] * self.targets, mass

    def sets(self, context: Context, trials: int) -> Iterator[tuple[Float, Float]]:
        """|O_t - O*_t| [sets, N] and Z-bar_t [sets, N] of sets of L tables, a batch at a time."""
        for key, count in context.batches(trials, TABLES_AT_ONCE // self.tables):
            x, z = self.sums(count * self.tables, key.generator())
            mass = z.reshape(count, self.tables, -1).mean(axis=1)
            mean = x.reshape(count, self.tables, *x.shape[1:]).mean(axis=1)
            yield np.linalg.norm(mean, axis=-1) / mass, mass

    def moments(self, context: Context) -> list[ResidualMoments]:
        """The moments of X_t of every row, from 4000 spare tables, plus 6 standard errors."""
        spare, _ = self.sums(SPARE_TABLES, context.key.fold_in("spare").generator())
        return [spare_table_moments(spare[:, t], STANDARD_ERRORS) for t in range(len(self.query))]


def triangle(context: Context) -> Triangle:
    rng = context.key.fold_in("tokens").generator()
    query, keys = rng.standard_normal((2, TOKENS, HEAD_DIM))
    query, keys = (LENGTH * rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (query, keys))
    return Triangle(query, keys, rng.standard_normal((TOKENS, 4)))
