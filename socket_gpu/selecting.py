"""Exact selection: the histogram of scores' order, and the kept slots.

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

NUM_BINS = 1024
# A block of 1024 threads on each of an H100's 132 multiprocessors runs at once.
_RESIDENT_BLOCKS = 264


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of the order of unforced scores, rows [R, bins] from bin_base [R] on; zero between steps."""

    counts: Any
    bin_base: Any
    bin_shift: int

    @classmethod
    def empty(cls, rows: int, bin_base: Any, bin_shift: int) -> Histogram:
        cupy = import_module("cupy")
        return cls(cupy.zeros((rows, NUM_BINS), dtype=np.uint32), bin_base, bin_shift)

    @classmethod
    def of_any_scores(cls, rows: int) -> Histogram:
        """Bins over all float32 values, coarse: for scores of unknown origin."""
        return cls.empty(rows, import_module("cupy").zeros(rows, dtype=np.int32), 22)


def select_into(
    indices: Any,
    lengths: Any,
    scores: Any,
    spans: Any,
    budget: Budget,
    histogram: Histogram,
    counted: bool,
) -> None:
    """Write the kept slots of scores [B, R, N] as ascending rows, -1 padded; `counted` if the histogram is filled."""
    batch, per_sequence, slots = scores.shape
    rows = batch * per_sequence
    macros = {"NUM_BINS": NUM_BINS, "BIN_SHIFT": histogram.bin_shift, "CLUSTER": cluster_size(rows)}
    count, base = histogram.counts, histogram.bin_base
    limits = [budget.sink, budget.window, -1 if budget.tokens is None else budget.tokens, budget.fraction or 0.0]
    if not counted:
        kernel = compiled("select.cu", "count_scores", **macros)
        launch(
            kernel,
            (-(-slots // 8192), rows),
            256,
            [scores, spans, count, base, slots, per_sequence, *limits[:2]],
            "iiii",
        )
    kernel = compiled("select.cu", "select_tokens", **macros)
    arguments = [scores, spans, count, base, indices, lengths, slots, per_sequence, indices.shape[-1], *limits]
    launch(kernel, (macros["CLUSTER"], rows), 1024, arguments, "iiiiild")


def cluster_size(rows: int) -> int:
    """Blocks that share a row: as many as run at once, up to 8; 1 before compute capability 9.0."""
    device = import_module("cupy").cuda.Device()
    if int(device.compute_capability) < 90:
        return 1
    return next(size for size in (8, 4, 2, 1) if size * rows <= _RESIDENT_BLOCKS or size == 1)


def sum_group_into(total: Any, scores: Any) -> None:
    """Scores [B, Hq, N] added over each KV head's group in head order -> [B, Hkv, N]."""
    batch, heads, slots = scores.shape
    kernel = compiled("select.cu", "sum_group", NUM_BINS=NUM_BINS, BIN_SHIFT=0, CLUSTER=1)
    group = heads // total.shape[1]
    launch(kernel, (-(-slots // 256), batch * total.shape[1]), 256, [scores, total, slots, group], "li")
