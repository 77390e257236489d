"""Scores of every valid token, by table look-ups."""

from __future__ import annotations

from typing import Any

from socket_gpu._compile import compiled
from socket_gpu._launch import launch
from socket_gpu.layout import CodeLayout
from socket_gpu.query_tables import HARD, QueryTables, entry_words
from socket_gpu.selecting import Survivors
from socket_theory.selection import Budget

# Two blocks on each of an H100's 132 multiprocessors run at once: one wave, no tail.
_THREADS, _BLOCKS_A_SM, _SMS = 512, 2, 132


def score_into(
    scores: Any,
    codes: Any,
    tables: QueryTables,
    spans: Any,
    layout: CodeLayout,
    *,
    hard: bool = False,
    norms: Any = None,
    survivors: Survivors | None = None,
    budget: Budget | None = None,
    blocks_per_pair: int | None = None,
) -> None:
    """Write float32 scores of every valid token: [B, Hq, N], or [B, Hkv, N] for a shared budget in one slab."""
    pairs, slots = len(tables.tables), scores.shape[-1]
    mode = HARD if hard else tables.mode
    shared = budget is not None and budget.group == "shared" and scores.shape[1] * len(scores) == pairs
    slabs = layout.slabs()
    scale = 1 / layout.num_tables if hard else 2.0**-layout.num_planes / layout.num_tables
    if blocks_per_pair is None:
        blocks_per_pair = max(1, min(layout.slot_blocks(slots) // 16, _SMS * _BLOCKS_A_SM // pairs))
    for number, (first4, words4, count) in enumerate(slabs):
        final = number == len(slabs) - 1
        words = entry_words(mode, tables.group)
        kernel = compiled(
            "score.cu",
            "score",
            **layout.macros(),
            MODE=mode,
            GROUP=tables.group,
            TABLES=count,
            WORDS4=words4,
            ENTRY_WORDS=words,
            THREADS=_THREADS,
            BLOCKS_A_SM=_BLOCKS_A_SM,
            SHARED=int(shared),
        )
        table_words = tables.group * count if hard else count * layout.chunks * words * 32
        chosen = survivors if final else None
        rows = 1 if shared else tables.group
        listed = 2 * _THREADS // 32 * rows * _listed(rows) if chosen else 0
        arguments = [
            codes,
            tables.buckets if hard else tables.tables,
            norms if final else None,
            spans,
            scores,
            *((chosen.keys, chosen.counts, chosen.floors) if chosen else (None, None, None)),
            chosen.keys.shape[1] if chosen else 0,
            pairs // len(spans),
            slots,
            codes.shape[2],
            first4,
            number > 0,
            budget.sink if budget else 0,
            budget.window if budget else 0,
            scale,
        ]
        launch(kernel, (blocks_per_pair, pairs), _THREADS, arguments, "iiiiiiiif", 4 * (table_words + 1 + listed))


def _listed(rows: int) -> int:
    """Survivors a warp holds for each of its rows before it writes them out; as in score.cu."""
    return 64 if rows > 4 else 128 if rows > 2 else 256
