"""`socket-theory bench santa`: every case gated, then timed, as one record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from socket_gpu.bench.captured import captured_shapes, layer_inputs
from socket_gpu.bench.clock import Clock
from socket_gpu.bench.dense import measure_dense
from socket_gpu.bench.inputs import Inputs, free_memory
from socket_gpu.bench.layouts import LAYOUTS
from socket_gpu.bench.record import announced, make_record
from socket_gpu.bench.rows import Row
from socket_gpu.bench.shape import Shape
from socket_gpu.santa.bench_step import measure_santa
from socket_theory.evaluate.capture import Capture
from socket_theory.santa.estimator import Santa

_DEFAULT, _FLASH = Santa(128), Santa(128, "flash")
_LONG = Shape(1, 32, 8, 131072)
GAUSSIAN: dict[Shape, tuple[Santa, ...]] = {
    _LONG: (_DEFAULT, Santa(256), Santa(512), Santa(1024), _FLASH),
    Shape(8, 32, 8, 32768): (_DEFAULT, Santa(256)),
    Shape(1, 32, 8, 32768): (_DEFAULT, _FLASH),
}
_LAID_OUT = {_LONG: LAYOUTS[1:]}


@dataclass(frozen=True, eq=False)
class Case:
    """Methods to measure beside the dense kernels, at one shape, on what `make()` gives: `source`, or random inputs."""

    shape: Shape
    methods: tuple[Santa, ...]
    make: Callable[[], Inputs]
    source: str | None = None
    layouts: tuple[str, ...] = ()
    """Other places of keys and values, at which the first method is measured again."""

    def __str__(self) -> str:
        return f"{self.shape}, {self.source or 'random inputs'}"

    def measure(self, clock: Clock) -> list[Row]:
        inputs = self.make()
        rows = measure_dense(inputs, self.shape, clock)
        for method in self.methods:
            free_memory()
            rows.append(measure_santa(inputs, self.shape, method, clock))
        for layout in self.layouts:
            free_memory()
            rows.append(measure_santa(inputs, self.shape, self.methods[0], clock, layout))
        named = {} if self.source is None else {"input": self.source}
        return [replace(row, settings=row.settings | named) for row in rows]


def santa_cases(capture: Capture | None) -> list[Case]:
    """Random inputs at the shapes of `GAUSSIAN`, and a capture's layers at its shapes beside random inputs there.

    The capture comes first, because it is what can be refused.
    """
    captured = [] if capture is None else _captured_cases(capture)
    methods = {case.shape: case.methods for case in captured} | GAUSSIAN
    return captured + [
        Case(shape, found, partial(Inputs.draw, shape), layouts=_LAID_OUT.get(shape, ()))
        for shape, found in methods.items()
    ]


def _captured_cases(capture: Capture) -> list[Case]:
    return [
        Case(
            shape,
            (_DEFAULT,),
            partial(layer_inputs, capture, layer, shape.kv_len),
            f"capture layer {layer}{repetition}",
        )
        for shape, repetition in captured_shapes(capture).items()
        for layer in range(len(capture.k))
    ]


def bench_santa(capture: Capture | None, commit: str, announce: Callable[[str], None]) -> dict[str, Any]:
    """The record of all cases, in the schema of the design's page on benchmarks; `announce` hears of each case.

    Raises
    ------
    GateError
        At the first wrong result, naming the case.
    TypeError, ValueError
        If the kernels do not take the capture's head_dim or group of heads.
    """

    def measure(clock: Clock) -> list[Row]:
        rows: list[Row] = []
        for case in santa_cases(capture):
            with announced(str(case), announce):
                rows += case.measure(clock)
        return rows

    return make_record(measure, commit)
