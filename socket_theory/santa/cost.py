"""Distinct value rows and bytes of a sampled decode step, in expectation (N6, N11, N14).

Inclusion is the probability that a head reads a row. Heads of a group draw independently, and a row that any of them
drew is read once: `group_reads`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from socket_theory.core.arguments import Float, nonnegative_number
from socket_theory.core.checks import require_count, require_head_ratio
from socket_theory.santa.law import stratum_laws
from socket_theory.santa.samplers import Int, probabilities, require_law, split_tiles
from socket_theory.santa.tiles import require_budgets


def iid_inclusion(weights: Float, num_samples: int) -> Float:
    """1 - (1 - p_j)^S: weights [N] -> [N]. Source: N6."""
    return np.asarray(1 - (1 - probabilities(weights)) ** require_count("num_samples", num_samples))


def stratified_inclusion(weights: Float, num_samples: int) -> Float:
    """1 - prod_m (1 - o_jm), o the overlap of token and stratum: [N] -> [N], never below iid. Source: N6."""
    return np.asarray(1 - np.prod(1 - stratum_laws(weights, num_samples), axis=0))


def systematic_inclusion(weights: Float, num_samples: int) -> Float:
    """min(1, S p_j): [N] -> [N], never below stratified. Source: N6."""
    return np.asarray(np.minimum(1, require_count("num_samples", num_samples) * probabilities(weights)))


def tiled_inclusion(weights: Float, tile_len: int, budgets: Int) -> Float:
    """min(1, k_t p_(j|t)) for tiles that draw by themselves: [N] -> [N]; flash adds up to at least T. Source: N7."""
    law = require_law(weights)
    masses = split_tiles(law, tile_len).sum(axis=1)
    factors = require_budgets(budgets, len(masses)) / np.where(masses > 0, masses, 1)
    return np.asarray(np.minimum(1, law * np.repeat(factors, tile_len)[: len(law)]))


def group_reads(inclusion: Float) -> float:
    """Rows, or key features, that a group of independent heads reads: sum_j 1 - prod_g (1 - pi_gj). Source: N14.

    Shapes: inclusion [G, N].
    """
    if inclusion.ndim != 2 or not ((inclusion >= 0) & (inclusion <= 1)).all():
        raise ValueError(f"inclusion of shape {inclusion.shape} was given: pass [G, N] probabilities, a row a head.")
    return float((1 - np.prod(1 - inclusion, axis=0)).sum())


@dataclass(frozen=True)
class DecodeShape:
    """Bytes of one layer's decode step for one sequence. `rows` are distinct value rows, the mean over KV heads."""

    kv_len: int
    num_qo_heads: int
    num_kv_heads: int
    head_dim: int
    itemsize: int = 2

    def __post_init__(self) -> None:
        for name in ("kv_len", "num_qo_heads", "num_kv_heads", "head_dim", "itemsize"):
            object.__setattr__(self, name, require_count(name, getattr(self, name)))
        require_head_ratio(self.num_qo_heads, self.num_kv_heads)

    @property
    def row_bytes(self) -> int:
        return self.head_dim * self.itemsize

    def dense(self) -> int:
        """Every key and every value."""
        return 2 * self.kv_len * self.num_kv_heads * self.row_bytes

    def sampled(self, rows: float, scratch: float = 0.0, key_share: float = 1.0) -> float:
        """`key_share` of the keys, `rows` values a KV head, and what a kernel writes and reads besides.

        A share below 1 needs keys stored feature by feature: leaving features out of a row saves no memory traffic.
        """
        nonnegative_number("scratch", scratch)
        for name, value, most in (("rows", rows, self.kv_len), ("key_share", key_share, 1)):
            if nonnegative_number(name, value) > most:
                raise ValueError(f"{name}={value!r} was given: pass a number from 0 to {most}.")
        return self.num_kv_heads * self.row_bytes * (key_share * self.kv_len + rows) + scratch

    def score_scratch(self, num_tiles: int) -> int:
        """Scores written and read in 16 bits, and 40 bytes a tile and head: the released proportional kernel."""
        return 4 * self.kv_len * self.num_qo_heads + 40 * self.num_qo_heads * require_count("num_tiles", num_tiles)

    def partial_scratch(self, num_tiles: int) -> int:
        """A float32 partial output a tile and head, written and read: the released flash kernel."""
        return 8 * self.num_qo_heads * require_count("num_tiles", num_tiles) * self.head_dim

    def speedup_limit(self, rows: float, scratch: float = 0.0, key_share: float = 1.0) -> float:
        """Dense bytes over sampled bytes: at most 2 while every key is read."""
        return self.dense() / self.sampled(rows, scratch, key_share)
