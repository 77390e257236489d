"""SANTA: exact scores, and a value average over rows drawn by them (N1-N10, N15)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.array_types import callers_stream
from socket_theory.core.baselines import head_uniforms, require_key
from socket_theory.core.cache import Cache
from socket_theory.core.checks import require_count
from socket_theory.core.estimate import Estimate
from socket_theory.core.inputs import refuse
from socket_theory.core.method import Method
from socket_theory.core.rng import Key
from socket_theory.core.selection import Budget, pad_rows
from socket_theory.core.step import Step
from socket_theory.santa.samplers import iid_counts, stratified_counts, systematic_counts
from socket_theory.santa.tiles import (
    flash_budgets,
    floor_one_budgets,
    largest_remainder,
    merge_by_mass,
    tile_masses,
    tiled_counts,
)

Float = NDArray[np.float64]
ValueSampler = Literal["phase_carried", "systematic", "stratified", "iid", "flash", "floor_one", "biased_prop"]
_TILED = ("phase_carried", "flash", "floor_one", "biased_prop")
_DEFAULT_TILE = 256


@dataclass(frozen=True)
class Santa(Method):
    """Attention whose value average is a sample: every key is read, and about `num_samples` values a head.

    With the softmax probabilities p_i of a query head over the N valid tokens and their values v_i, row i is drawn c_i
    times with mean S p_i, and the estimate is sum_i c_i v_i / S (for "flash" and "floor_one" each of the T tiles
    averages its own draws, weighed by the exact mass of the tile). A step reads all keys and the distinct rows drawn,
    so half of dense attention's bytes is the least where values are as long as keys.

    Unbiased for `Dense` with every sampler but "biased_prop", whose bias is `santa.law.prop_bias`. The lse
    is the exact one, so a sampled state merges with exact ones and stays unbiased. Rows are drawn by the scores that
    selection ranks by, which every backend rounds to float32, float64 inputs too: on the reference that moves the mean
    by at most about 2^-23 ln(N) max|v|.

    Parameters
    ----------
    num_samples : int
        S >= 1. The variance falls as 1/S for "iid" (N3), on real attention faster for the stratified and systematic
        ones; rows read and time grow with S, slower than S where few tokens hold the mass. "flash" draws
        max(1, floor(S/T)) in each of its T tiles, "floor_one" S and one more a tile without any.
    sampler : str
        "phase_carried": systematic counts, one offset a head, the phase carried from tile to tile; "systematic": the
        same counts without tiles; "stratified", "iid"; "flash": equal budgets, an offset a tile, merged by tile mass;
        "floor_one": largest-remainder budgets of at least 1, merged by tile mass; "biased_prop": largest-remainder
        budgets merged as they are.
    tile_len : int, optional
        Tokens a tile, 256 by default; None for "systematic", "stratified" and "iid", which have no tiles. It changes no
        draw of "phase_carried". For "flash" longer tiles are fewer, with more draws each, which mostly errs less.

    Raises
    ------
    TypeError, ValueError
        For a count that is no integer of at least 1, an unknown sampler, or a tile_len with a sampler without tiles.

    References
    ----------
    Lee et al., "Stochastic Sparse Attention for Memory-Bound Inference", arXiv 2605.01910; claims N1-N10.
    """

    num_samples: int = 128
    sampler: ValueSampler = "phase_carried"
    tile_len: int | None = None

    reads_every_key: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_samples", require_count("num_samples", self.num_samples))
        if self.sampler not in get_args(ValueSampler):
            raise ValueError(f"sampler={self.sampler!r} is unknown: pass one of {', '.join(get_args(ValueSampler))}.")
        if self.sampler in _TILED:
            tile_len = _DEFAULT_TILE if self.tile_len is None else self.tile_len
            object.__setattr__(self, "tile_len", require_count("tile_len", tile_len))
        elif self.tile_len is not None:
            raise ValueError(f"tile_len={self.tile_len} was given to sampler={self.sampler!r}, without tiles: drop it.")

    def attend(
        self,
        query: Any,
        cache: Cache,
        *,
        budget: Budget | None = None,
        sm_scale: float | None = None,
        out_dtype: Any | None = None,
        key: Key | None = None,
    ) -> Estimate:
        """One draw of the estimator. Requires `key`, into which request, layer and step are folded; takes no budget.

        Shapes: query [..., Hq, D] -> value [..., Hq, E]; indices are the distinct rows drawn. The draw of a head
        depends on the key and on its place in the batch. Raises TypeError without a key, and as `Method.attend`.
        """
        refuse(self, budget=budget)
        step = Step.start(self, query, cache, sm_scale, out_dtype)
        drawn_by, backend = require_key(self, key), cache.backend
        with callers_stream(cache.array_type):
            asked = self.scored_query(step, drawn_by)
            scores = backend.exact_scores(asked, cache.keys, cache.spans, step.sm_scale)
            rows, indices, mass = self._draw(backend.to_host(scores), step, drawn_by)
            value = backend.average(backend.to_device(rows), cache.values, cache.spans)[0]
            lse = backend.attend(asked, cache.keys, cache.values, step.everything(), step.sm_scale)[1]
            known = mass if asked is step.query else None  # other scores have another mass than the softmax's
            return step.finish(value, lse, backend.to_device(indices), captured_mass=known)

    def scored_query(self, step: Step, key: Key) -> Any:
        """The query that scores the keys."""
        return step.query

    def row_weights(self, weights: Float, uniforms: Float) -> Float:
        """What each value row is multiplied by, adding up to 1: weights [N] of the tokens, uniforms [M] -> [N].

        M is S for "iid" and "stratified", 1 for "systematic" and "phase_carried", the number of tiles for the others.
        Raises ValueError for another number of them, and as `santa.samplers.systematic_counts`.
        """
        samples, tile = self.num_samples, self.tile_len
        needed = self.num_uniforms(len(weights))
        if uniforms.shape != (needed,):
            raise ValueError(f"uniforms have shape {uniforms.shape}: pass [{needed}] for {len(weights)} tokens.")
        if self.sampler == "iid":
            return iid_counts(weights, uniforms) / samples
        if self.sampler == "stratified":
            return stratified_counts(weights, uniforms) / samples
        if tile is None or self.sampler == "phase_carried":
            return systematic_counts(weights, samples, uniforms[0], tile) / samples
        masses = tile_masses(weights, tile)
        if self.sampler == "biased_prop":
            return tiled_counts(weights, tile, largest_remainder(masses, samples), uniforms) / samples
        flash = self.sampler == "flash"
        budgets = flash_budgets(len(masses), samples) if flash else floor_one_budgets(masses, samples)
        return merge_by_mass(tiled_counts(weights, tile, budgets, uniforms), weights, tile, budgets)

    def num_uniforms(self, kv_len: int) -> int:
        """How many uniforms `row_weights` takes for a sequence of `kv_len` tokens."""
        if self.sampler in ("iid", "stratified"):
            return self.num_samples
        return 1 if self.tile_len is None or self.sampler == "phase_carried" else -(-kv_len // self.tile_len)

    def _draw(self, scores: Any, step: Step, key: Key) -> tuple[Float, Any, Float]:
        """Log row weights [B, Hq, N], the rows of positive weight [B, Hq, K], and their softmax mass [B, Hq]."""
        spans = step.cache.spans
        most = max(self.num_uniforms(int(length)) for length in spans[:, 1])
        uniforms = head_uniforms(key, step, np.arange(most))
        logs, mass, drawn = np.full(scores.shape, -np.inf), np.empty(scores.shape[:2]), []
        for row, head in np.ndindex(*scores.shape[:2]):
            start, length = (int(n) for n in spans[row])
            weights = np.exp(scores[row, head, start : start + length].astype(np.float64))
            rows = self.row_weights(weights, uniforms[row, head, : self.num_uniforms(length)])
            hit = np.flatnonzero(rows)
            logs[row, head, start + hit] = np.log(rows[hit])
            mass[row, head] = weights[hit].sum() / weights.sum()
            drawn.append((start + hit).astype(np.int32))
        return logs, pad_rows(drawn).reshape(*mass.shape, -1), mass
