"""Exact selection of the kept slots.

Shapes: B sequences, Hq query heads, Hkv KV heads, N slots; spans int64 [B, 2] on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu._compile import compiled
from socket_gpu._launch import launch, multiprocessors
from socket_theory.selection import Budget

_THREADS = 1024
_MOST_HELD = 16
_MOST_PARTS = 4


@dataclass(frozen=True, eq=False)
class Survivors:
    """Tokens a scorer passes on: keys [R, capacity], counts [2, R] of them and of readers, and floors [R, 2]."""

    keys: Any
    counts: Any
    floors: Any

    @classmethod
    def empty(cls, rows: int, kept: int) -> Survivors:
        cupy = import_module("cupy")
        capacity = _THREADS * 2 * min(_MOST_HELD // 2, -(-4 * kept // (2 * _THREADS)))
        floors = cupy.full((rows, 2), 2**32 - 1, dtype=np.uint32)
        floors[:, 1] = 1
        return cls(cupy.empty((rows, capacity), dtype=np.uint64), cupy.zeros((2, rows), dtype=np.uint32), floors)


def select_into(
    indices: Any,
    lengths: Any,
    scores: Any,
    spans: Any,
    budget: Budget,
    survivors: Survivors | None = None,
    status: Any = None,
) -> None:
    """Write the kept slots of scores [B, R, N] as ascending rows, -1 padded; faster with the scorer's survivors."""
    batch, per_sequence, slots = scores.shape
    tokens = -1 if budget.tokens is None else budget.tokens
    lists = (survivors.keys, survivors.counts, survivors.floors) if survivors else (None, None, None)
    capacity = survivors.keys.shape[1] if survivors else 0
    limits = [indices.shape[-1], budget.sink, budget.window, tokens, budget.fraction or 0.0]
    arguments = [scores, spans, *lists, status, indices, lengths, slots, per_sequence, capacity, *limits]
    rows = batch * per_sequence
    parts = max(1, min(_MOST_PARTS, multiprocessors() // rows))
    crowded = rows * parts > multiprocessors() and capacity <= 4 * _THREADS
    registers = {"PER_THREAD": max(2, capacity // _THREADS), "BLOCKS_A_SM": 2 if crowded else 1}
    kernel = compiled("select.cu", "select_tokens", **registers)
    launch(kernel, (parts, rows), _THREADS, arguments, "iiiiiild")


def sum_group_into(total: Any, scores: Any) -> None:
    """Scores [B, Hq, N] added over each KV head's group in head order -> [B, Hkv, N]."""
    batch, heads, slots = scores.shape
    kernel = compiled("select.cu", "sum_group", PER_THREAD=2, BLOCKS_A_SM=1)
    group = heads // total.shape[1]
    launch(kernel, (-(-slots // 256), batch * total.shape[1]), 256, [scores, total, slots, group], "li")
