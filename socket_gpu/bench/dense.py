"""The strongest dense kernels present, each in the layout it likes best: a row a kernel.

A kernel is tried in every way its peer knows to call it. Each output is checked, the fastest call makes the row, and
the row's settings hold the times of all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from socket_gpu.bench import gate
from socket_gpu.bench.byte_model import dense_bytes
from socket_gpu.bench.clock import Clock, Timing
from socket_gpu.bench.flash_infer import flash_infer_calls
from socket_gpu.bench.inputs import Inputs
from socket_gpu.bench.peers import Call, Tensors
from socket_gpu.bench.rows import Row
from socket_gpu.bench.sdpa import sdpa_calls
from socket_gpu.bench.shape import SEED, Shape
from socket_theory.core.attention import softmax_attention


def measure_dense(inputs: Inputs, shape: Shape, clock: Clock) -> list[Row]:
    """A row for every dense kernel; one that cannot run says why instead of a time.

    Raises
    ------
    GateError
        If an output is not the attention of these inputs.
    """
    truth = Truth.of(inputs, shape)
    peers: dict[str, Callable[[Tensors], list[Call]]] = {
        "sdpa_flash": partial(sdpa_calls, "FLASH_ATTENTION"),
        "sdpa_cudnn": partial(sdpa_calls, "CUDNN_ATTENTION"),
        "flashinfer": partial(flash_infer_calls, shape=shape),
    }
    try:
        tensors = Tensors.of(inputs)
    except ImportError as error:
        return [dense_row(name, shape, {}, {"all": reason(error)}) for name in peers]
    return [_measure_peer(name, partial(calls, tensors), shape, truth, clock) for name, calls in peers.items()]


class Truth:
    """Float64 attention of some rows, and the whole output [B, Hq, D] of the first kernel that ran."""

    def __init__(self, rows: dict[tuple[int, int], Any], shape: Shape) -> None:
        self.rows, self.size = rows, (shape.batch, shape.num_qo_heads, shape.head_dim)
        self.first: Any = None

    @classmethod
    def of(cls, inputs: Inputs, shape: Shape) -> Truth:
        rows, group = {}, shape.num_qo_heads // shape.num_kv_heads
        for sequence, head in gate.sampled_rows(shape.batch, shape.num_qo_heads, 2):
            keys, values = (array[sequence, head // group].get() for array in (inputs.keys, inputs.values))
            rows[sequence, head] = softmax_attention(inputs.queries[0, sequence, head].get(), keys, values).value
        return cls(rows, shape)

    def check(self, name: str, output: Any) -> None:
        """GateError unless an output agrees with the float64 rows and with the first kernel's output."""
        found = output.reshape(self.size)
        for (sequence, head), expected in self.rows.items():
            gate.require_value(f"{name}, sequence {sequence}, query head {head},", found[sequence, head], expected)
        self.first = found if self.first is None else self.first
        gate.require_value(f"{name}, compared with another kernel,", found, self.first)


def dense_row(name: str, shape: Shape, timings: dict[str, Timing], failures: dict[str, str]) -> Row:
    """The row of a kernel from the times of its calls and from why others did not run."""
    best = min(timings, key=lambda call: timings[call].us, default=None)
    calls = {reason: [call for call in failures if failures[call] == reason] for reason in failures.values()}
    return Row(
        method=name,
        settings={"call": best, "us_of_calls": {call: timing.us for call, timing in timings.items()}, "seed": SEED},
        shape=shape,
        kept_tokens=shape.kv_len,
        bytes=dense_bytes(shape),
        timing=None if best is None else timings[best],
        note="; ".join(f"{', '.join(names)} not run: {reason}" for reason, names in calls.items()) or None,
    )


def _measure_peer(name: str, list_calls: Callable[[], list[Call]], shape: Shape, truth: Truth, clock: Clock) -> Row:
    """Whatever a peer raises becomes a note; only a wrong output stops the run."""
    timings: dict[str, Timing] = {}
    failures: dict[str, str] = {}
    try:
        calls = list_calls()
    except Exception as error:
        return dense_row(name, shape, {}, {"all": reason(error)})
    for call in calls:
        try:
            timings[call.name] = _measure_call(f"{name} ({call.name})", call, truth, clock)
        except gate.GateError:
            raise
        except Exception as error:
            failures[call.name] = reason(error)
    return dense_row(name, shape, timings, failures)


def _measure_call(name: str, call: Call, truth: Truth, clock: Clock) -> Timing:
    """The time of a replayed graph whose output, written over NaN, has passed the gate."""
    cuda = import_module("torch").cuda
    with call.choice():
        for _ in range(2):
            call.attend()
        cuda.synchronize()
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            output = call.attend()
    output.fill_(float("nan"))
    graph.replay()
    truth.check(name, output.float().cpu().numpy())
    return clock.time(graph.replay)


def reason(error: Exception) -> str:
    """What a note says of an exception: its type and its first line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"
