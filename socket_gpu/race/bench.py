"""`socket-theory bench race`: every case gated, then timed, as one record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from socket_gpu.bench.clock import Clock, Timing
from socket_gpu.bench.inputs import free_memory
from socket_gpu.bench.record import announced, make_record
from socket_gpu.bench.rows import Row
from socket_gpu.bench.shape import Shape
from socket_gpu.race.bench_pass import measure_sequences
from socket_gpu.race.bench_rivals import measure_peers
from socket_gpu.race.cases import (
    CPU,
    CPU_SIZES,
    ELEMENTS,
    GOAL,
    GROUPS,
    LARGEST,
    PEERS,
    STEP,
    Case,
    cases,
    largest_case,
    sequences,
)
from socket_gpu.race.slopes import fitted_slopes
from socket_gpu.race.traffic import stage_floors, tensor_bytes
from socket_theory.evaluate.race_training import cpu_training

SPARE_BYTES = 6 * 2**30
"""What the largest case leaves free: the sums of tiles, and what the gate computes with."""
ATTEMPTS = 4


def bench_race(groups: Sequence[str], commit: str, announce: Callable[[str], None]) -> dict[str, Any]:
    """The record of these groups, in the schema of the design's page on benchmarks, with floors and slopes.

    `announce` hears of each case.

    Raises
    ------
    GateError
        At the first wrong result of ours, naming the case.
    """

    def measure(clock: Clock) -> list[Row]:
        rows: list[Row] = []
        for case in cases(groups):
            with announced(str(case), announce):
                rows += measure_sequences(case, clock)
        if LARGEST in groups:
            rows += _measure_largest(clock, announce)
        if CPU in groups:
            rows += _measure_cpu(announce)
        if PEERS in groups:
            rows += measure_peers(GROUPS["causal"], clock, announce)
        return rows

    record = make_record(measure, commit)
    bandwidths = record["read_bandwidth_tb_s"], record["copy_bandwidth_tb_s"]
    record["rows"] = [row | floors(row, *bandwidths) for row in record["rows"]]
    return record | {"slopes": fitted_slopes(record["rows"])}


def floors(row: dict[str, Any], read_tb_s: float, copy_tb_s: float) -> dict[str, Any]:
    """The least time of a row's bytes, in all and by stage, and the share of it in the time; None for other kernels."""
    if row["method"] != "race":
        return dict.fromkeys(("floor_us", "share_of_floor", "stage_floor_us"))
    settings, heads = row["settings"], (row["num_qo_heads"], row["num_kv_heads"])
    shape = Shape(row["batch"], *heads, row["kv_len"], row["head_dim"])
    element = ELEMENTS[settings["dtype"]]
    found = stage_floors(shape, settings["causal"], settings["backward"], element, read_tb_s, copy_tb_s)
    total = sum(found.values())
    return {
        "floor_us": round(total, 2),
        "share_of_floor": round(total / row["us"], 4),
        "stage_floor_us": {name: round(us, 2) for name, us in found.items()},
    }


def _measure_largest(clock: Clock, announce: Callable[[str], None]) -> list[Row]:
    """The goal's size where it fits, and the largest that does, made smaller after each failure to allocate."""
    free_memory()
    cuda = import_module("cupy").cuda
    most = largest_case(cuda.runtime.memGetInfo()[0], SPARE_BYTES)
    goal = sequences(GOAL, True)
    rows: list[Row] = []
    if goal.shape.kv_len < most.shape.kv_len:
        with announced(str(goal), announce):
            rows += measure_sequences(goal, clock)
    for attempt in range(ATTEMPTS):
        case = sequences(most.shape.kv_len - attempt * (most.shape.kv_len // 32 // STEP + 1) * STEP, True)
        try:
            with announced(str(case), announce):
                return rows + measure_sequences(case, clock, staged=False)
        except cuda.memory.OutOfMemoryError:
            free_memory()
    return rows


def _measure_cpu(announce: Callable[[str], None]) -> list[Row]:
    rows = []
    for tokens in CPU_SIZES:
        for causal in (True, False):
            case = sequences(tokens, causal, "float32")
            announce(f"the CPU, {case}")
            rows += _cpu_rows(case)
    return rows


def _cpu_rows(case: Case) -> list[Row]:
    try:
        run, note = cpu_training(case.shape.kv_len, case.causal), None
    except (OSError, RuntimeError) as error:
        run, note = None, f"not run: {error}"
    rows = []
    for backward in (False, True):
        seconds = [] if run is None else [sum(step) if backward else step[0] for step in run.seconds]
        rows.append(
            Row(
                method="race_cpu",
                settings=case.settings(backward) | ({} if run is None else {"cores": run.cores}),
                shape=case.shape,
                bytes=tensor_bytes(case.shape, backward, case.element),
                timing=Timing.of([1e6 * s for s in seconds]) if seconds else None,
                peak_bytes=run.peak_bytes if run is not None and backward else None,
                note=note,
            )
        )
    return rows
