"""Rows for R5: a query, the keys that it sees and their values, with the exact target and weights of fresh tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from socket_theory.bounds.residual_range import residual_range
from socket_theory.core import table_sets
from socket_theory.core.angular import angles
from socket_theory.core.claim import Context
from socket_theory.race.bounds.entries import weight_bound
from socket_theory.race.law import RaceKernel

Float = NDArray[np.float64]
HEAD_DIM, LONG = 16, 50.0


@dataclass(frozen=True, eq=False)
class Row:
    """A kernel, a query [D], keys [N, D] and values [N, E]."""

    kernel: RaceKernel
    query: Float
    keys: Float
    values: Float

    @cached_property
    def kernel_values(self) -> Float:
        """kappa_j, the mean weight of every key."""
        keys, place = self.distinct
        lengths = np.linalg.norm(self.query), np.linalg.norm(keys, axis=1)
        return np.asarray(self.kernel.mean(angles(self.query, keys), *lengths)[place])

    @cached_property
    def distinct(self) -> tuple[Float, NDArray[np.intp]]:
        """Keys that differ, and which of them each key is."""
        keys, place = np.unique(self.keys, axis=0, return_inverse=True)
        return keys, place.reshape(-1)

    @cached_property
    def residuals(self) -> Float:
        """v_j - O*."""
        target = self.kernel_values @ self.values / self.mass
        return np.asarray(self.values - target)

    @property
    def mass(self) -> float:
        """Z = sum_j kappa_j."""
        return float(self.kernel_values.sum())

    @property
    def value_radius(self) -> float:
        """D = max |v_j - O*|."""
        return float(np.max(np.linalg.norm(self.residuals, axis=-1)))

    @property
    def residual_range(self) -> float:
        """R, the largest |X| that weights in the kernel's range allow."""
        return residual_range(self.kernel.weight_range(), self.residuals)

    @property
    def weight_bound(self) -> float:
        """B."""
        return weight_bound(self.kernel, len(self.keys))

    def draw_weights(self, count: int, rng: np.random.Generator) -> Float:
        """Weights of `count` fresh tables [count, N], above 0 also in hard buckets, where 1 + a b rounds to 0."""
        keys, place = self.distinct
        planes = rng.standard_normal((count, self.kernel.num_planes, len(self.query)))
        (above, below), (up, down) = (
            [expit(sign * 2 * self.kernel.beta * np.tanh(planes @ rows)) for sign in (1, -1)]
            for rows in (self.query, keys.T)
        )
        return np.asarray(np.prod(above[..., None] * up + below[..., None] * down, axis=1)[:, place])


def random_row(context: Context) -> Row:
    """32 random keys and values in 16 dimensions, of which short vectors keep buckets soft."""
    rng = context.generator()
    query, keys, values = (rng.standard_normal(shape) for shape in ((HEAD_DIM,), (32, HEAD_DIM), (32, HEAD_DIM)))
    return Row(RaceKernel(3, 2.0), query / 2, keys / 2, values)


def _opposite(context: Context, copies: int, num_planes: int) -> Row:
    """Copies of k and of -k, orthogonal to the query, with values 1 and -1: O* = 0, D = 1, and buckets nearly hard."""
    query, key = LONG * np.linalg.qr(context.generator().standard_normal((HEAD_DIM, 2)))[0].T
    values = np.repeat([[1.0], [-1.0]], copies, axis=0)
    return Row(RaceKernel(num_planes, 20.0), query, np.repeat([key, -key], copies, axis=0), values)


def _crowd(context: Context) -> Row:
    """128 copies of a key that is in the query's bucket once in 128 tables, and one key that nearly always is."""
    query, key = LONG * np.linalg.qr(context.generator().standard_normal((HEAD_DIM, 2)))[0].T
    values = np.repeat([[1.0], [-1.0]], [128, 1], axis=0)
    return Row(RaceKernel(7, 20.0), query, np.repeat([key, query], [128, 1], axis=0), values)


Setting = table_sets.Setting[Row]
Form = table_sets.Form[Row]
RANDOM: Setting = (random_row, 100, 100)
MANY_TABLES: Setting = (random_row, 500, 50)
MANY_COPIES: Setting = (partial(_opposite, copies=16, num_planes=1), 50, 400)
FAIR_SIGNS: Setting = (partial(_opposite, copies=1, num_planes=1), 50, 1000)
COPIED_SIGNS: Setting = (partial(_opposite, copies=8, num_planes=1), 50, 1000)
MANY_FAIR_SIGNS: Setting = (partial(_opposite, copies=1, num_planes=1), 1000, 300)
ONE_TABLE: Setting = (partial(_opposite, copies=1, num_planes=4), 1, 4000)
RARELY_HIT: Setting = (partial(_opposite, copies=1, num_planes=6), 150, 300)
CROWD: Setting = (_crowd, 60, 100)
