"""SOCKET's part of a planned step: scores by soft or hard collisions, and codes of new tokens."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.core.append import lengthened
from socket_gpu.socket_lsh import hash_keys, score
from socket_gpu.socket_lsh.codes import LANES, CodeLayout
from socket_theory.core.cache import Cache
from socket_theory.core.selection import Budget
from socket_theory.socket_lsh.estimator import Socket
from socket_theory.socket_lsh.hard_lsh import HardLSH


@dataclass(frozen=True, eq=False)
class CodeScorer:
    """The codes and norms of a cache, what keys are hashed with, and how a query's collisions are scored."""

    layout: CodeLayout
    collision: score.Collision
    codes: Any
    norms: Any
    center: Any
    fragments: Any
    matrix: Any
    adds_groups: bool
    zero_is_wrong: bool

    @classmethod
    def of(cls, cache: Cache, group: int) -> CodeScorer:
        """For so many query heads a KV head."""
        method, frozen, arrays = cache.method, cache.index.frozen, cache.index.arrays
        layout, collision = CodeLayout(method.num_tables, method.num_planes), collision_of(method)
        center, blocks = frozen.get("center"), layout.slot_blocks(cache.rows.shape[2])
        if blocks > arrays["codes"].shape[2]:  # of an owner's rows that have grown
            sizes = {"codes": blocks, "value_norms": LANES * blocks}
            arrays = {name: lengthened(array, 2, sizes[name]) for name, array in arrays.items()}
        return cls(
            layout,
            collision,
            arrays["codes"],
            arrays.get("value_norms"),
            None if center is None else import_module("cupy").ascontiguousarray(center.astype(np.float64)),
            hash_keys.plane_fragments(cache.sample),
            hash_keys.hash_matrix(cache.sample),
            adds_groups=score.passes(collision.entry(layout, cache.rows.shape[3], group), group) == 1
            and layout.rings <= score.MOST_RINGS,
            zero_is_wrong=collision.query_map != "hard",
        )

    @property
    def slots(self) -> int:
        return int(LANES * self.codes.shape[2])

    def score_into(self, scores: Any, query: Any, spans: Any, survivors: Any, budget: Budget) -> None:
        score.score_into(
            scores,
            query,
            self.fragments,
            self.codes,
            spans,
            self.layout,
            self.collision,
            norms=self.norms,
            survivors=survivors,
            budget=budget,
        )

    def append(self, keys: Any, values: Any, spans: Any, capacity: int) -> None:
        hash_keys.hash_into(self.codes, keys, spans, self.layout, self.matrix, self.center, capacity)
        if self.norms is not None:
            hash_keys.norms_into(self.norms, values, spans, append=True)


def collision_of(method: Any) -> score.Collision:
    """How a method scores, or TypeError for one that may score in a way of its own."""
    if type(method) is Socket:
        return score.Collision(method.query_map, method.temperature)
    if type(method) is HardLSH:
        return score.Collision("hard")
    raise TypeError(f"{type(method).__name__} has no GPU decode plan: pass a cache of Socket or HardLSH.")
