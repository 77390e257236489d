"""Sets of tables, and what the forms of what they cost in a weighted mean know of a problem (S9, R5)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from socket_theory.bounds.residual import ResidualMoments, spare_table_moments
from socket_theory.bounds.residual_range import residual_range

Float = NDArray[np.float64]
STANDARD_ERRORS, WEIGHTS_AT_ONCE = 2.0, 2_000_000


class Problem(Protocol):
    """A query, its keys and values, as the claims of both families have them."""

    @property
    def residuals(self) -> Float:
        """v_i - y about the exact target y [N, E]."""

    def draw_weights(self, count: int, rng: np.random.Generator) -> Float:
        """w_i^(l) of `count` fresh tables [count, N]."""


@dataclass(frozen=True, eq=False)
class TableSets:
    """Sets of L fresh tables, X_l(y) [sets, L, E] and Z_l [sets, L], and what the forms know of the problem.

    `weight_range` holds the ends of every weight, `residuals` v_i - y [N, E] and `mass` Z.

    `moments` come from tables of their own, with two standard errors added: they are estimates, not a theorem.
    """

    x: Float
    z: Float
    moments: ResidualMoments
    weight_range: tuple[float, float]
    residuals: Float
    mass: float

    @property
    def weight_bound(self) -> float:
        """B, the largest sum of the weights of a table."""
        return len(self.residuals) * self.weight_range[1]

    @property
    def value_radius(self) -> float:
        """D = max |v_i - y|."""
        return float(np.max(np.linalg.norm(self.residuals, axis=-1)))

    @cached_property
    def norm_bound(self) -> float:
        """R with |X_l| <= R for every draw."""
        return residual_range(self.weight_range, self.residuals)

    @property
    def masses(self) -> Float:
        """Z-bar [sets]."""
        return np.asarray(self.z.mean(axis=1))

    @property
    def errors(self) -> Float:
        """|y_L - y| [sets]."""
        return np.asarray(np.linalg.norm(self.x.mean(axis=1), axis=-1) / self.masses)


def table_sums(problem: Problem, tables: int, rng: np.random.Generator) -> tuple[Float, Float]:
    """X_l(y) [tables, E] and Z_l [tables] of fresh tables."""
    residuals = problem.residuals
    size, parts = max(1, WEIGHTS_AT_ONCE // len(residuals)), []
    for start in range(0, tables, size):
        weights = problem.draw_weights(min(size, tables - start), rng)
        parts.append((weights @ residuals, weights.sum(axis=1)))
    x, z = zip(*parts, strict=True)
    return np.concatenate(x), np.concatenate(z)


def spare_moments(problem: Problem, tables: int, rng: np.random.Generator) -> ResidualMoments:
    return spare_table_moments(table_sums(problem, tables, rng)[0], STANDARD_ERRORS)


def diameter(values: Float) -> float:
    """max |v_i - v_j|, a block of rows at a time."""
    squares = (values * values).sum(axis=1)
    blocks = (slice(start, start + 512) for start in range(0, len(values), 512))
    furthest = max(float((squares[rows, None] + squares - 2 * values[rows] @ values.T).max()) for rows in blocks)
    return float(np.sqrt(furthest))
