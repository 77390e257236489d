"""RACE at one setting: fresh tables for entries, for a row that sees every key, and for the rows of a triangle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from socket_theory.bounds.residual import ResidualMoments, spare_table_moments
from socket_theory.core.claim import Context
from socket_theory.core.rng import Key
from socket_theory.evaluate.tightness.table_sets import STANDARD_ERRORS, TableSets, spare_moments, table_sums
from socket_theory.race.claims.rows import Row
from socket_theory.race.claims.tables import query_and_keys, table_weights
from socket_theory.race.claims.triangles import Triangle
from socket_theory.race.law import RaceKernel

Float = NDArray[np.float64]
ANGLES = np.array([0.3, 0.8, 1.2])
VALUE_DIM, ROWS, ROW_VALUE_DIM = 16, 64, 4
MORE, SPARE = 10, 20  # trials of what is cheap, and spare tables a trial


@dataclass(frozen=True, eq=False)
class RaceSetting:
    """A kernel, Gaussian queries, keys and values of one length of keys and queries, and the number of tables L."""

    kernel: RaceKernel
    length: float
    head_dim: int
    num_keys: int
    num_tables: int
    trials: int
    key: Key

    def rng(self, tag: str) -> np.random.Generator:
        return self.key.fold_in(tag).generator()

    @property
    def norms(self) -> tuple[float, float]:
        return self.length, self.length

    def vectors(self, count: int, rng: np.random.Generator) -> Float:
        rows = rng.standard_normal((count, self.head_dim))
        return np.asarray(self.length * rows / np.linalg.norm(rows, axis=1, keepdims=True))

    @cached_property
    def entry_errors(self) -> Float:
        """|w-bar - kappa| of L tables at ANGLES [trials, 3]."""
        rng, trials = self.rng("entries"), MORE * self.trials
        query, keys = query_and_keys(rng, ANGLES, *self.norms)
        weights = table_weights(query, keys, self.kernel, trials * self.num_tables, rng)
        means = weights.reshape(trials, self.num_tables, -1).mean(axis=1)
        return np.asarray(np.abs(means - self.kernel.mean(ANGLES, *self.norms)))

    @cached_property
    def row(self) -> Row:
        rng = self.rng("row")
        query, keys = self.vectors(1, rng)[0], self.vectors(self.num_keys, rng)
        return Row(self.kernel, query, keys, rng.standard_normal((self.num_keys, VALUE_DIM)))

    @cached_property
    def sets(self) -> TableSets:
        row, shape = self.row, (self.trials, self.num_tables)
        x, z = table_sums(row, self.trials * self.num_tables, self.rng("sets"))
        moments = spare_moments(row, SPARE * self.trials, self.rng("spare"))
        known = self.kernel.weight_range(), row.residuals, row.mass
        return TableSets(x.reshape(*shape, -1), z.reshape(shape), moments, *known)

    @cached_property
    def triangle(self) -> Triangle:
        rng = self.rng("triangle")
        query, keys = self.vectors(ROWS, rng), self.vectors(ROWS, rng)
        return Triangle(query, keys, rng.standard_normal((ROWS, ROW_VALUE_DIM)), self.kernel, self.num_tables)

    @cached_property
    def triangle_sets(self) -> tuple[Float, Float]:
        """|O_t - O*_t| and Z-bar_t of every row, [trials, 64] each."""
        context = Context(self.key.fold_in("triangle sets"), "quick", 1.0)
        errors, masses = zip(*self.triangle.sets(context, self.trials), strict=True)
        return np.concatenate(errors), np.concatenate(masses)

    @cached_property
    def triangle_moments(self) -> list[ResidualMoments]:
        """Of X_t of every row, from spare tables."""
        spare, _ = self.triangle.sums(SPARE * self.trials, self.rng("triangle spare"))
        return [spare_table_moments(spare[:, t], STANDARD_ERRORS) for t in range(ROWS)]
