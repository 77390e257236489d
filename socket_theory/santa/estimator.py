"""SANTA: exact scores, and a value average over rows drawn by them (N1-N10, N15)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.checks import require_count
from socket_theory.core.sampler import Sampler
from socket_theory.santa.exact import require_draws
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
class Santa(Sampler):
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
        S, from 1 to 2^32. The variance falls as 1/S for "iid" (N3), on real attention faster for the stratified and
        systematic ones; rows read and time grow with S, slower than S where few tokens hold the mass. "flash" draws
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
        For a count that is no integer of at least 1, more than 2^32 samples, an unknown sampler, or a tile_len with a
        sampler without tiles.

    References
    ----------
    Lee et al., "Stochastic Sparse Attention for Memory-Bound Inference", arXiv 2605.01910; claims N1-N10.
    """

    num_samples: int = 128
    sampler: ValueSampler = "phase_carried"
    tile_len: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_samples", require_draws(self.num_samples))
        if self.sampler not in get_args(ValueSampler):
            raise ValueError(f"sampler={self.sampler!r} is unknown: pass one of {', '.join(get_args(ValueSampler))}.")
        if self.sampler in _TILED:
            tile_len = _DEFAULT_TILE if self.tile_len is None else self.tile_len
            object.__setattr__(self, "tile_len", require_count("tile_len", tile_len))
        elif self.tile_len is not None:
            raise ValueError(f"tile_len={self.tile_len} was given to sampler={self.sampler!r}, without tiles: drop it.")

    @property
    def scoring(self) -> Any:
        """The method that draws the query; None, as the query scores as it is."""
        return None

    def draws(self, law: Float, uniforms: Float) -> Float:
        """What each value row is multiplied by, adding up to 1: weights `law` [N] of the tokens, uniforms [M] -> [N].

        M is S for "iid" and "stratified", 1 for "systematic" and "phase_carried", the number of tiles for the others.
        Raises ValueError for another number of them, and as `santa.samplers.systematic_counts`.
        """
        samples, tile = self.num_samples, self.tile_len
        needed = self.num_uniforms(len(law))
        if uniforms.shape != (needed,):
            raise ValueError(f"uniforms have shape {uniforms.shape}: pass [{needed}] for {len(law)} tokens.")
        if self.sampler == "iid":
            return iid_counts(law, uniforms) / samples
        if self.sampler == "stratified":
            return stratified_counts(law, uniforms) / samples
        if tile is None or self.sampler == "phase_carried":
            return systematic_counts(law, samples, uniforms[0], tile) / samples
        masses = tile_masses(law, tile)
        if self.sampler == "biased_prop":
            return tiled_counts(law, tile, largest_remainder(masses, samples), uniforms) / samples
        flash = self.sampler == "flash"
        budgets = flash_budgets(len(masses), samples) if flash else floor_one_budgets(masses, samples)
        return merge_by_mass(tiled_counts(law, tile, budgets, uniforms), law, tile, budgets)

    def num_uniforms(self, kv_len: int) -> int:
        """How many uniforms `draws` takes for a sequence of `kv_len` tokens."""
        if self.sampler in ("iid", "stratified"):
            return self.num_samples
        return 1 if self.tile_len is None or self.sampler == "phase_carried" else -(-kv_len // self.tile_len)
