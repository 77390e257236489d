"""SANTA at one setting: a softmax law of Gaussian scores, values, and sampled averages of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.rng import Key
from socket_theory.santa.law import prop_bias
from socket_theory.santa.samplers import iid_counts, stratified_counts, systematic_counts
from socket_theory.santa.tiles import flash_budgets, largest_remainder, merge_by_mass, tile_masses, tiled_counts

Float = NDArray[np.float64]
VALUE_DIM, SCORES, COUNTS_AT_ONCE = 16, 2.0, 4_000_000
MORE = 10  # draws a trial


@dataclass(frozen=True, eq=False)
class SantaSetting:
    """Tokens, draws S and the length of a tile; scores are normal of standard deviation 2."""

    kv_len: int
    num_samples: int
    tile_len: int
    trials: int
    key: Key

    def rng(self, tag: str) -> np.random.Generator:
        return self.key.fold_in(tag).generator()

    @cached_property
    def law(self) -> Float:
        weights = np.exp(SCORES * self.rng("scores").standard_normal(self.kv_len))
        return np.asarray(weights / weights.sum())

    @cached_property
    def values(self) -> Float:
        return self.rng("values").standard_normal((self.kv_len, VALUE_DIM))

    @cached_property
    def masses(self) -> Float:
        return tile_masses(self.law, self.tile_len)

    @cached_property
    def output(self) -> Float:
        """mu."""
        return np.asarray(self.law @ self.values)

    @cached_property
    def bias(self) -> Float:
        """Of prop."""
        return prop_bias(self.law, self.values, self.num_samples, self.tile_len)

    @cached_property
    def iid(self) -> Float:
        return self._errors("iid", lambda rng, n: iid_counts(self.law, rng.random((n, self.num_samples))))

    @cached_property
    def strata(self) -> Float:
        return self._errors("strata", lambda rng, n: stratified_counts(self.law, rng.random((n, self.num_samples))))

    @cached_property
    def systematic(self) -> Float:
        return self._errors("systematic", lambda rng, n: systematic_counts(self.law, self.num_samples, rng.random(n)))

    @cached_property
    def flash(self) -> Float:
        budgets = flash_budgets(len(self.masses), self.num_samples)
        samples, known = self.num_samples, (self.law, self.tile_len, budgets)

        def rows(rng: np.random.Generator, n: int) -> Float:
            counts = tiled_counts(*known, rng.random((n, len(budgets))))
            return samples * merge_by_mass(counts, *known)

        return self._errors("flash", rows)

    @cached_property
    def prop(self) -> Float:
        """About prop's own mean."""
        budgets = largest_remainder(self.masses, self.num_samples)

        def rows(rng: np.random.Generator, n: int) -> Float:
            return tiled_counts(self.law, self.tile_len, budgets, rng.random((n, len(budgets)))).astype(float)

        return self._errors("prop", rows, self.output + self.bias)

    def _errors(
        self, tag: str, draw: Callable[[np.random.Generator, int], NDArray[np.number]], mean: Float | None = None
    ) -> Float:
        """|sum_j c_j v_j / S - mean| of counts c that `draw` gives [n, N]: [10 trials]."""
        rng, trials, size = self.rng(tag), MORE * self.trials, max(1, COUNTS_AT_ONCE // self.kv_len)
        counts = (draw(rng, min(size, trials - start)) for start in range(0, trials, size))
        about = self.output if mean is None else mean
        return np.concatenate([np.linalg.norm(c @ self.values / self.num_samples - about, axis=1) for c in counts])
