"""Exact selection of the kept slots.

Shapes: B sequences, Hq query heads, Hkv KV heads, N slots; spans int64 [B, 2] on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu._compile import compiled
from socket_gpu._launch import launch
from socket_theory.selection import Budget

_THREADS = 1024
_MOST_HELD = 16


@dataclass(frozen=True, eq=False)
class Survivors:
    """Tokens a scorer passes on: keys [R, capacity], counts [R], and floors [R, 2] that follow the thresholds."""

    keys: Any
    counts: Any
    floors: Any

    @classmethod
    def empty(cls, rows: int, kept: int) -> Survivors:
        cupy = import_module("cupy")
        capacity = _THREADS * min(_MOST_HELD, -(-4 * kept // _THREADS))
        floors = cupy.full((rows, 2), 2**32 - 1, dtype=np.uint32)
        floors[:, 1] = 1
        return cls(cupy.empty((rows, capacity), dtype=np.uint64), cupy.zeros(rows, dtype=np.uint32), floors)


def select_into(
    indices: Any, lengths: Any, scores: Any, spans: Any, budget: Budget, survivors: Survivors | None = None
) -> None:
    """Write the kept slots of scores [B, R, N] as ascending rows, -1 padded; faster with the scorer's survivors."""
    batch, per_sequence, slots = scores.shape
    tokens = -1 if budget.tokens is None else budget.tokens
    lists = (survivors.keys, survivors.counts, survivors.floors) if survivors else (None, None, None)
    capacity = survivors.keys.shape[1] if survivors else 0
    limits = [indices.shape[-1], budget.sink, budget.window, tokens, budget.fraction or 0.0]
    arguments = [scores, spans, *lists, indices, lengths, slots, per_sequence, capacity, *limits]
    kernel = compiled("select.cu", "select_tokens")
    launch(kernel, (batch * per_sequence,), _THREADS, arguments, "iiiiiild", 8 * capacity)


def sum_group_into(total: Any, scores: Any) -> None:
    """Scores [B, Hq, N] added over each KV head's group in head order -> [B, Hkv, N]."""
    batch, heads, slots = scores.shape
    kernel = compiled("select.cu", "sum_group")
    group = heads // total.shape[1]
    launch(kernel, (-(-slots // 256), batch * total.shape[1]), 256, [scores, total, slots, group], "li")
