"""Rows of a result: as measured, and as the JSON that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from socket_gpu.bench.clock import Timing
from socket_gpu.bench.shape import Shape

DENSE_METHODS = ("sdpa_flash", "sdpa_cudnn", "flashinfer")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement; `timing` is None, and `note` says why, where a peer did not run."""

    method: str
    settings: dict[str, Any]
    shape: Shape
    nominal_bits: int = 0
    bits_per_token: int = 0
    kept_tokens: int | None = None
    bytes: int
    timing: Timing | None
    stage_us: dict[str, float] | None = None
    misses: dict[str, float] | None = None
    peak_bytes: int | None = None
    note: str | None = None

    @property
    def case(self) -> tuple[Shape, str | None]:
        """What rows that compete have in common: the shape, and the inputs if they are not the random ones."""
        return self.shape, self.settings.get("input")


def row_records(rows: Sequence[Row], read_bandwidth: float) -> list[dict[str, Any]]:
    """The rows as JSON objects: None for no value.

    `ratio_to_best_dense` is the time of the fastest dense kernel on the row's case over the row's own: above 1 is
    faster than dense. It is None for operations that no dense kernel competes with, which keep no tokens.
    """
    best: dict[tuple[Shape, str | None], float] = {}
    for row in rows:
        if row.method in DENSE_METHODS and row.timing:
            best[row.case] = min(row.timing.us, best.get(row.case, row.timing.us))
    return [_record(row, best.get(row.case), read_bandwidth) for row in rows]


def _record(row: Row, best_dense: float | None, read_bandwidth: float) -> dict[str, Any]:
    us = row.timing.us if row.timing else None
    comparable = us is not None and best_dense is not None and row.kept_tokens is not None
    return {
        "method": row.method,
        "settings": row.settings,
        **asdict(row.shape),
        "nominal_bits": row.nominal_bits,
        "bits_per_token": row.bits_per_token,
        "kept_tokens": row.kept_tokens,
        "us": us,
        "us_quartiles": list(row.timing.quartiles) if row.timing else None,
        "us_longest": row.timing.longest if row.timing else None,
        "us_mean": row.timing.mean if row.timing else None,
        "ratio_to_best_dense": round(best_dense / us, 4) if comparable and best_dense and us else None,
        "bytes": row.bytes,
        "fraction_of_read_bandwidth": None if us is None else round(row.bytes / us / 1e6 / read_bandwidth, 4),
        "stage_us": row.stage_us,
        "misses": row.misses,
        "runs": row.timing.runs if row.timing else None,
        "peak_bytes": row.peak_bytes,
        "note": row.note,
    }
