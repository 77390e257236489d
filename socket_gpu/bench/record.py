"""The record of a run: the machine, its bandwidths and the rows; and the name of the case that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from socket_gpu.bench import machine
from socket_gpu.bench.clock import Clock, bandwidths
from socket_gpu.bench.gate import GateError
from socket_gpu.bench.inputs import free_memory
from socket_gpu.bench.rows import Row, row_records


def make_record(measure: Callable[[Clock], list[Row]], commit: str) -> dict[str, Any]:
    """What `measure` finds on this machine, in the schema of the design's page on benchmarks."""
    clock = Clock()
    copy, read = bandwidths(clock)
    free_memory()
    rows = measure(clock)
    return {
        "device": machine.device_name(),
        "driver": machine.driver_version(),
        "versions": machine.library_versions(),
        "commit": commit,
        "copy_bandwidth_tb_s": copy,
        "read_bandwidth_tb_s": read,
        "rows": row_records(rows, read),
    }


@contextmanager
def announced(name: str, announce: Callable[[str], None]) -> Iterator[None]:
    """A case that `announce` hears of and a GateError names; its memory is given back."""
    announce(name)
    try:
        yield
    except GateError as error:
        raise GateError(f"the gate failed at {name}, so no speed is shown: {error}") from error
    free_memory()
