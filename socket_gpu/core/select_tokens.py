"""Exact selection of the kept slots.

Shapes: B sequences, Hq query heads, Hkv KV heads, N slots; spans int64 [B, 2] on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.core._compile import compiled
from socket_gpu.core._launch import checked, launch, multiprocessors
from socket_theory.core.selection import Budget

_THREADS = 1024
_MOST_HELD = 8
_MOST_PARTS = 4
_LEAST_ROOM = 8192


@dataclass(frozen=True, eq=False)
class Survivors:
    """Tokens a scorer passes on: keys [R, capacity], counts [3, R] of them, of readers and of misses, floors [R, 2]."""

    keys: Any
    counts: Any
    floors: Any

    @classmethod
    def empty(cls, rows: int, kept: int, slots: int) -> Survivors:
        """Room for 32 tokens a kept one, as far as a text's thresholds move, and for 8192 at least, or for all."""
        cupy = import_module("cupy")
        capacity = _pairs_of_threads(min(max(32 * kept, _LEAST_ROOM), slots))
        floors = cupy.empty((rows, 2), dtype=np.uint32)
        survivors = cls(cupy.empty((rows, capacity), dtype=np.uint64), cupy.zeros((3, rows), dtype=np.uint32), floors)
        survivors.forget()
        return survivors

    def clear(self) -> None:
        """Drop what was passed on and not selected from."""
        self.counts[:2] = 0

    def forget(self) -> None:
        """Pass on nothing in the next step."""
        self.floors[:, 0], self.floors[:, 1] = 2**32 - 1, 1


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
    rows, kept = batch * per_sequence, indices.shape[-1]
    parts = max(1, min(_MOST_PARTS, multiprocessors() // rows))
    crowded = rows * parts > multiprocessors() and kept <= _THREADS
    capacity = survivors.keys.shape[1] if survivors else 0
    held = min(capacity, _pairs_of_threads(2 * kept)) // _THREADS
    width = 1 if slots % 4 else 4
    checked("scores", scores, alignment=4 * width)
    kernel = compiled(
        "core/select_tokens.cu",
        "select_tokens",
        per_thread=max(2, min(_MOST_HELD, held)),
        blocks_a_sm=2 if crowded else 1,
        width=width,
    )
    launch(
        kernel,
        (parts, rows),
        _THREADS,
        scores=scores,
        spans=spans,
        survivors=survivors.keys if survivors else None,
        counts=survivors.counts if survivors else None,
        floors=survivors.floors if survivors else None,
        status=status,
        indices=indices,
        lengths=lengths,
        slots=slots,
        rows_per_sequence=per_sequence,
        capacity=capacity,
        max_kept=kept,
        sink=min(budget.sink, slots),
        window=min(budget.window, slots),
        tokens=np.int64(-1 if budget.tokens is None else budget.tokens),
        fraction=np.float64(budget.fraction or 0),
    )


def _pairs_of_threads(tokens: int) -> int:
    """`tokens` rounded up to two a thread."""
    return 2 * _THREADS * -(-tokens // (2 * _THREADS))


def sum_group_into(total: Any, scores: Any) -> None:
    """Scores [B, Hq, N] added over each KV head's group in head order -> [B, Hkv, N]."""
    (batch, heads, slots), num_kv_heads = scores.shape, total.shape[1]
    launch(
        compiled("core/select_tokens.cu", "sum_group"),
        (-(-slots // 256), batch * num_kv_heads),
        256,
        scores=scores,
        total=total,
        slots=np.int64(slots),
        group=heads // num_kv_heads,
    )
