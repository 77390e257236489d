"""Scores of every valid token, from the queries, by one table look-up a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from socket_gpu.core._compile import compiled
from socket_gpu.core._launch import element, launch, multiprocessors, shared_memory_limit
from socket_gpu.core.select_tokens import Survivors
from socket_gpu.socket_lsh.codes import CodeLayout
from socket_theory.core.hashing import QueryMap, query_map_bound
from socket_theory.core.selection import Budget

Entry = Literal["bytes", "float"]
# RMS error of byte tables over the standard deviation of scores up to which they are used.
BYTE_TABLE_ERROR = 0.015
# Entries whose range is a smaller part of the largest one are rounded in steps of this part, see score.cu.
_LEAST_RANGE = 1 / 64
# Rings of 32 tables a launch takes.
MOST_RINGS = 8
_THREADS = 512
_TILE = 256
_LISTS = 24 * 1024
_STATIC = 1024
# What a block spends on filling its look-up tables, in blocks of 32 tokens.
_FILL = 64


@dataclass(frozen=True)
class Collision:
    """Soft collisions by a query map and a temperature, or hard ones."""

    query_map: QueryMap | Literal["hard"]
    temperature: float = 1.0

    def entry(self, layout: CodeLayout, head_dim: int, group: int) -> Entry:
        """The look-up entries that score a group of heads: bytes where heads share one and lose little, else floats."""
        if layout.rings > MOST_RINGS:
            return "float"
        if self.query_map == "hard":
            return "bytes"
        ratio = query_map_bound(self.query_map, head_dim) / self.temperature
        t, planes = math.tanh(ratio), layout.num_planes
        wide = (1 + t) ** planes - (1 - t) ** planes >= _LEAST_RANGE * (1 + t) ** planes
        fine = group > 1 and wide and ratio < 1 and byte_table_error(ratio, planes) <= BYTE_TABLE_ERROR
        return "bytes" if fine and _low_bits(layout) == layout.num_planes else "float"


def byte_table_error(ratio: float, num_planes: int) -> float:
    """RMS error of a score from byte tables over the standard deviation of scores, where every |h|/tau is `ratio`.

    Entries span [(1-t)^P, (1+t)^P], t = tanh(ratio), in 253 steps; rounding is uniform over a step, and the variance of
    an entry over codes is (1+t^2)^P - 1. Both add over tables. Where |h|/tau differ it is more, up to twice as much, as
    all tables are rounded in the steps of the widest (decisions.md); where they are small it is less, until the range
    of the entries falls below 1/64 of the largest.
    """
    t = math.tanh(ratio)
    step = ((1 + t) ** num_planes - (1 - t) ** num_planes) / 253
    return step / math.sqrt(12 * ((1 + t * t) ** num_planes - 1))


def passes(entry: Entry, group: int) -> int:
    """How often codes are read for a group of heads."""
    return math.ceil(group / 4) if entry == "bytes" else group


def score_into(
    scores: Any,
    query: Any,
    fragments: Any,
    codes: Any,
    spans: Any,
    layout: CodeLayout,
    collision: Collision,
    *,
    norms: Any = None,
    survivors: Survivors | None = None,
    budget: Budget | None = None,
) -> None:
    """Write float32 scores of every valid token: [B, Hq, N], or [B, Hkv, N] for a shared budget in one pass.

    query [B, Hq, D]; fragments are `hash_keys.plane_fragments`; codes [B, Hkv, blocks, rings, P, 32].
    """
    pairs, slots, dim = codes.shape[0] * codes.shape[1], scores.shape[-1], query.shape[-1]
    group = query.shape[0] * query.shape[1] // pairs
    entry = collision.entry(layout, dim, group)
    rounds, own = passes(entry, group), min(group, 4) if entry == "bytes" else 1
    shared = group > 1 and scores.shape[0] * scores.shape[1] == pairs
    rows = 1 if shared else own
    low_bits = _low_bits(layout)
    shares = _shares(layout.slot_blocks(slots), pairs * rounds)
    scale = (1 if collision.query_map == "hard" else 2.0**-layout.num_planes) / layout.num_tables
    for first in range(0, layout.rings, MOST_RINGS):
        rings = min(MOST_RINGS, layout.rings - first)
        final = first + rings == layout.rings
        kernel = compiled(
            "socket_lsh/score.cu",
            "score",
            element(query),
            query_map=f"map_{collision.query_map}",
            head_dim=dim,
            splits={"bfloat16": 1, "float16": 2}.get(str(query.dtype), 3),
            planes=layout.num_planes,
            tables=min(32 * rings, layout.num_tables - 32 * first),
            all_rings=layout.rings,
            low_bits=low_bits,
            group=group,
            bytes=entry == "bytes",
            shared=shared,
            threads=_THREADS,
            listed=_LISTS // (_THREADS // 32 * rows * 8),
        )
        fixed = (
            _LISTS
            + _table_bytes(layout, low_bits)
            + rings * layout.num_planes * (own * 128 if entry == "bytes" else 256)
        )
        sums = 256 if entry == "bytes" else 128
        room = (shared_memory_limit() - _STATIC - fixed) // sums
        tile = max(16, min(_TILE, math.ceil(layout.slot_blocks(slots) / shares), room) // 16 * 16)
        chosen = survivors if final else None
        sink, window = _forced(budget, slots)
        launch(
            kernel,
            (rounds * shares, pairs),
            _THREADS,
            fixed + (tile * sums if rings > 1 else 0),
            query=query,
            planes=fragments,
            codes=codes,
            norms=norms if final else None,
            spans=spans,
            scores=scores,
            survivors=chosen.keys if chosen else None,
            num_survivors=chosen.counts if chosen else None,
            floors=chosen.floors if chosen else None,
            capacity=chosen.keys.shape[1] if chosen else 0,
            num_kv_heads=pairs // len(spans),
            slots=slots,
            slot_blocks=codes.shape[2],
            first_ring=first,
            accumulate=first > 0,
            tile=tile,
            sink=sink,
            window=window,
            inverse_temperature=1 / collision.temperature,
            mean=scale,
        )


def _forced(budget: Budget | None, slots: int) -> tuple[int, int]:
    return (min(budget.sink, slots), min(budget.window, slots)) if budget else (0, 0)


def _low_bits(layout: CodeLayout) -> int:
    """Bits of a code that a look-up takes: all where 2^P entries of 32 tables fit beside the rest, else half."""
    rest = _LISTS + _STATIC + min(layout.rings, MOST_RINGS) * layout.num_planes * 512 + 16 * 1024
    whole = layout.num_planes <= 10 and _table_bytes(layout, layout.num_planes) + rest <= shared_memory_limit()
    return layout.num_planes if whole else math.ceil(layout.num_planes / 2)


def _table_bytes(layout: CodeLayout, low_bits: int) -> int:
    high_bits = layout.num_planes - low_bits
    return (128 << low_bits) + (128 << high_bits if high_bits else 0)


def _shares(blocks: int, rows: int) -> int:
    """Into how many pieces a row of blocks is split: the fewest steps over all waves, tables filled anew in each."""
    processors = multiprocessors()
    most = max(1, min(blocks // 16, processors))
    return min(range(1, most + 1), key=lambda n: math.ceil(rows * n / processors) * (math.ceil(blocks / n) + _FILL))
