"""`socket-theory bench decode`: every case gated, then timed, as one record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from socket_gpu.bench.captured import captured_shapes, layer_inputs
from socket_gpu.bench.clock import Clock
from socket_gpu.bench.dense import measure_dense
from socket_gpu.bench.inputs import Inputs, free_memory
from socket_gpu.bench.record import announced, make_record
from socket_gpu.bench.rows import Row
from socket_gpu.bench.shape import Shape
from socket_gpu.socket_lsh.bench_index import measure_index
from socket_gpu.socket_lsh.bench_step import measure_socket
from socket_gpu.socket_lsh.cases import INDEX, INDEX_SHAPE, RELEASED, Setting, cases
from socket_theory.evaluate.capture import Capture


def bench_decode(
    groups: Sequence[str], capture: Capture | None, commit: str, announce: Callable[[str], None]
) -> dict[str, Any]:
    """The record of these groups and of a capture's layers, in the schema of the design's page on benchmarks.

    `announce` hears of each case.

    Raises
    ------
    GateError
        At the first wrong result, naming the case.
    """

    def measure(clock: Clock) -> list[Row]:
        rows: list[Row] = []
        if capture:
            for layer in range(len(capture.k)):
                with announced(f"capture layer {layer}, repeated", announce):
                    rows += _measure_layer(capture, layer, clock)
        for shape, settings in cases(groups).items():
            with announced(str(shape), announce):
                rows += _measure_shape(Inputs.draw(shape), shape, settings, clock)
        if INDEX in groups:
            with announced(f"the index of {INDEX_SHAPE}", announce):
                rows += measure_index(clock)
        return rows

    return make_record(measure, commit)


def _measure_shape(inputs: Inputs, shape: Shape, settings: Sequence[Setting], clock: Clock) -> list[Row]:
    rows = measure_dense(inputs, shape, clock)
    for setting in settings:
        free_memory()
        rows.append(measure_socket(inputs, shape, setting, clock))
    return rows


def _measure_layer(capture: Capture, layer: int, clock: Clock) -> list[Row]:
    """A layer of a model, repeated to a long cache, with its last queries in their order."""
    shape = max(captured_shapes(capture), key=lambda shape: shape.kv_len)
    rows = _measure_shape(layer_inputs(capture, layer, shape.kv_len), shape, [RELEASED], clock)
    named = {"input": f"capture layer {layer}, repeated"}
    return [replace(row, settings=row.settings | named) for row in rows]
