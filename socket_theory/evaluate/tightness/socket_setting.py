"""SOCKET at one setting: fresh tables for entries, pairs, recall and outputs, each drawn once and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from socket_theory.bounds.importance import plain_spread
from socket_theory.bounds.recall import KeyScores
from socket_theory.core.angular import angles
from socket_theory.core.draws import draw_tokens
from socket_theory.core.hashing import apply_query_map
from socket_theory.core.rng import Key
from socket_theory.evaluate.tightness.entry import DELTA
from socket_theory.evaluate.tightness.table_sets import TableSets, spare_moments, table_sums
from socket_theory.socket_lsh.claims.bias import Problem
from socket_theory.socket_lsh.law import SoftKernel

Float = NDArray[np.float64]
ANGLES = np.array([0.3, 0.8, 1.2, np.pi / 2])
VALUE_DIM, RECALL, RECALL_KEYS = 16, 0.5, 512
MORE, SPARE, FEWER = 10, 20, 4  # trials of what is cheap, spare tables a trial, and of what is dear
MOST_TABLES, BLOCK = 20_000, 10


@dataclass(frozen=True, eq=False)
class SocketSetting:
    """A kernel, Gaussian keys and values, and the numbers of tables L and of draws M."""

    kernel: SoftKernel
    query_norm: float
    num_keys: int
    num_tables: int
    num_samples: int
    trials: int
    key: Key

    def rng(self, tag: str) -> np.random.Generator:
        return self.key.fold_in(tag).generator()

    @cached_property
    def problem(self) -> Problem:
        rng = self.rng("problem")
        query = rng.standard_normal(self.kernel.head_dim)
        query *= self.query_norm / np.linalg.norm(query)
        keys, values = (rng.standard_normal((self.num_keys, size)) for size in (self.kernel.head_dim, VALUE_DIM))
        return Problem(self.kernel, query, keys, values)

    def angle_weights(self, count: int, rng: np.random.Generator) -> Float:
        """w of keys at ANGLES in `count` tables [count, 4], from projections on the query and four directions."""
        drawn = rng.standard_normal((count, self.kernel.num_planes, 1 + len(ANGLES)))
        mapped = apply_query_map(self.query_norm * drawn[..., 0], self.kernel.query_map, self.kernel.head_dim)
        signs = np.where(np.cos(ANGLES) * drawn[..., :1] + np.sin(ANGLES) * drawn[..., 1:] >= 0, 2.0, -2.0)
        return np.asarray(np.prod(expit(signs * mapped[..., None] / self.kernel.temperature), axis=1))

    @cached_property
    def means(self) -> Float:
        """kappa at ANGLES [4]."""
        return self.kernel.mean(ANGLES, self.query_norm)

    @cached_property
    def entry_errors(self) -> Float:
        """|w-bar - kappa| of L tables at ANGLES [trials, 4]."""
        trials, rng, size = MORE * self.trials, self.rng("entries"), max(1, 20_000 // self.num_tables)
        counts = [min(size, trials - start) for start in range(0, trials, size)]
        sets = (self.angle_weights(n * self.num_tables, rng).reshape(n, self.num_tables, -1) for n in counts)
        return np.abs(np.concatenate([s.mean(axis=1) for s in sets]) - self.means)

    @cached_property
    def ranking_tables(self) -> NDArray[np.int64]:
        """The smallest numbers of tables that misrank neighbours in ANGLES with probability at most delta [3]."""
        trials, rng = MORE * self.trials, self.rng("pairs")

        def gaps(count: int) -> Float:
            weights = self.angle_weights(trials * count, rng).reshape(trials, count, -1)
            return weights[..., :-1] - weights[..., 1:]

        return first_counts(gaps, lambda total: (total <= 0).mean(axis=0) <= DELTA)

    @cached_property
    def recall_problem(self) -> tuple[Problem, int]:
        """The first 512 keys, and k = N/16 of them."""
        keys, values = self.problem.keys[:RECALL_KEYS], self.problem.values[:RECALL_KEYS]
        return Problem(self.kernel, self.problem.query, keys, values), max(1, len(keys) // 16)

    @cached_property
    def key_scores(self) -> KeyScores:
        """The law of one table's scores of the first 512 keys."""
        theta = angles(self.problem.query, self.recall_problem[0].keys)
        known = self.kernel.mean(theta, self.query_norm), self.kernel.variance(theta, self.query_norm)
        return KeyScores(*known, self.kernel.weight_range())

    @cached_property
    def recalling_tables(self) -> tuple[int, int]:
        """The smallest L at which half of the true top k is found, with probability 1 - delta and in the mean."""
        trials, rng, (near, k) = max(2, self.trials // FEWER), self.rng("recall"), self.recall_problem
        best = np.argsort(near.kernel_values[0])[-k:]

        def weights(count: int) -> Float:
            return np.stack([near.draw_weights(count, rng) for _ in range(trials)])

        def recalled(total: Float) -> NDArray[np.bool_]:
            found = np.argpartition(total, -k, axis=1)[:, -k:]
            share = np.array([np.isin(row, best).mean() for row in found])
            return np.array([(share >= RECALL).mean() >= 1 - DELTA, share.mean() >= RECALL])

        likely, in_the_mean = first_counts(weights, recalled)
        return int(likely), int(in_the_mean)

    @cached_property
    def sets(self) -> TableSets:
        problem, rng, shape = self.problem, self.rng("sets"), (self.trials, self.num_tables)
        x, z = table_sums(problem, self.trials * self.num_tables, rng)
        return TableSets(
            x.reshape(*shape, -1),
            z.reshape(shape),
            spare_moments(problem, SPARE * self.trials, self.rng("spare")),
            self.kernel.weight_range(),
            problem.residuals,
            float(problem.kernel_values[0].sum()),
        )

    def too_light_tables(self, delta: float) -> int:
        """The smallest L with Z-bar < Z/2 in at most a share delta of sets."""
        flat, count = self.sets.z.reshape(-1), 1
        while (flat[: len(flat) // count * count].reshape(-1, count).mean(axis=1) < self.sets.mass / 2).mean() > delta:
            count += 1
        return count

    @cached_property
    def mean_weights(self) -> Float:
        """w-bar of one set of L tables [N]."""
        return np.asarray(self.problem.draw_weights(self.num_tables, self.rng("one set")).mean(axis=0))

    def sampling_errors(self, weights: Float, terms: Float, target: Float) -> Float:
        """|mean of M terms - target| with terms drawn by `weights` [trials]."""
        points = self.rng("draws").random((MORE * self.trials, self.num_samples))
        drawn = draw_tokens(weights, points.ravel()).reshape(points.shape)
        return np.array([np.linalg.norm(terms[row].mean(axis=0) - target) for row in drawn])

    @cached_property
    def whole_errors(self) -> tuple[Float, Float, Float]:
        """|y_{tau,L,M} - y*|, S10's radius at delta/2 and Z-bar, of fresh sets of tables [trials] each."""
        problem, rng = self.problem, self.rng("whole")
        rows = []
        for _ in range(self.trials):
            weights = problem.draw_weights(self.num_tables, rng).mean(axis=0)
            drawn = draw_tokens(weights, rng.random(self.num_samples))
            error = np.linalg.norm(problem.values[drawn].mean(axis=0) - problem.target)
            radius = plain_spread(weights, problem.values).bernstein(DELTA / 2, self.num_samples)
            rows.append((error, radius, weights.sum()))
        errors, radii, masses = np.array(rows).T
        return errors, radii, masses


def first_counts(draw: Callable[[int], Float], passes: Callable[[Float], NDArray[np.bool_]]) -> NDArray[np.int64]:
    """The first number of tables at which sums over it pass, for each of K cases: [K].

    `draw` gives [trials, count, ...] of fresh tables, `passes` of the sums over all tables so far [K]. Numbers up to
    twenty are tried one by one, and then in steps of a tenth. What has not passed at 20000 counts as that many.
    """
    total, count = draw(1).sum(axis=1), 1
    found = np.where(passes(total), 1, MOST_TABLES)
    while (found == MOST_TABLES).any() and count < MOST_TABLES:
        step = max(1, count // BLOCK)
        total = total + draw(step).sum(axis=1)
        count += step
        found = np.where((found == MOST_TABLES) & passes(total), count, found)
    return found
