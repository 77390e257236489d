"""`socket-theory bench decode`: every case gated, then timed, as one record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from socket_gpu.bench import machine
from socket_gpu.bench.cases import INDEX, INDEX_SHAPE, Setting, Shape, cases
from socket_gpu.bench.clock import Clock, bandwidths
from socket_gpu.bench.dense import measure_dense
from socket_gpu.bench.gate import GateError
from socket_gpu.bench.index_update import measure_index
from socket_gpu.bench.inputs import Inputs, free_memory
from socket_gpu.bench.rows import Row, row_records
from socket_gpu.bench.socket_step import measure_socket


def bench_decode(groups: Sequence[str], commit: str, announce: Callable[[str], None]) -> dict[str, Any]:
    """The record of these groups, in the schema of the design's page on benchmarks; `announce` hears of each case.

    Raises
    ------
    GateError
        At the first wrong result, naming the case.
    """
    clock = Clock()
    copy, read = bandwidths(clock)
    free_memory()
    rows: list[Row] = []
    for shape, settings in cases(groups).items():
        with _case(str(shape), announce):
            rows += _measure_shape(shape, settings, clock)
        free_memory()
    if INDEX in groups:
        with _case(f"the index of {INDEX_SHAPE}", announce):
            rows += measure_index(clock)
    return {
        "device": machine.device_name(),
        "driver": machine.driver_version(),
        "versions": machine.library_versions(),
        "commit": commit,
        "copy_bandwidth_tb_s": copy,
        "read_bandwidth_tb_s": read,
        "rows": row_records(rows, read),
    }


def _measure_shape(shape: Shape, settings: Sequence[Setting], clock: Clock) -> list[Row]:
    inputs = Inputs.draw(shape)
    rows = measure_dense(inputs, shape, clock)
    for setting in settings:
        free_memory()
        rows.append(measure_socket(inputs, shape, setting, clock))
    return rows


@contextmanager
def _case(name: str, announce: Callable[[str], None]) -> Iterator[None]:
    announce(name)
    try:
        yield
    except GateError as error:
        raise GateError(f"the gate failed at {name}, so no speed is shown: {error}") from error
