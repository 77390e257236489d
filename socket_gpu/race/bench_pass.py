"""RACE's kernels over whole sequences: gated, then timed forward and forward with backward, stage by stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from socket_gpu.bench.clock import FLUSH_BYTES, Clock, capture
from socket_gpu.bench.inputs import held_bytes
from socket_gpu.bench.rows import Row
from socket_gpu.bench.stages import in_order, stage_us
from socket_gpu.race.border_gate import Borders
from socket_gpu.race.cases import Case
from socket_gpu.race.gate import outputs_of, poison_outputs, require_exact, require_same_again, some_rows
from socket_gpu.race.inputs import SequenceInputs, dtype_of, empty, fill
from socket_gpu.race.sequences import RaceSequences
from socket_gpu.race.traffic import race_bytes

Stages = dict[str, Callable[[], None]]
SHORT_US = 50_000.0
SHORT, LONG = (3, 30), (1, 5)
"""Warm-ups and runs of work that takes less than SHORT_US, and of work that takes more."""


def measure_sequences(case: Case, clock: Clock, *, staged: bool = True) -> list[Row]:
    """A row for the forward run and one for the forward and the backward run.

    Raises
    ------
    GateError
        If an output is wrong, or if a replay of the timed graph does not give it again.
    """
    inputs = SequenceInputs.draw(case)
    sequences = RaceSequences(inputs.query, inputs.keys, inputs.values, inputs.planes, inputs.beta, case.causal)
    forward = sequences.forward_stages()
    in_order(forward.values())()
    peaks = [held_bytes() - FLUSH_BYTES]
    above = _like(inputs.query, case)
    backward = sequences.backward_stages(above)
    both = forward | {(f"{name}, again" if name in forward else name): run for name, run in backward.items()}
    in_order(both.values())()
    peaks.append(held_bytes() - FLUSH_BYTES)
    _check(case, inputs, sequences, above, in_order(both.values()))
    gated = some_rows(sequences, backward=True)

    rows = []
    for stages, peak in zip((forward, both), peaks, strict=True):
        is_backward = stages is both
        replay = capture(in_order(stages.values()))
        repeated = clock_for(clock, replay)
        timing = repeated.time(replay)
        split = stage_us(stages, lambda run: None, repeated, timing.us) if staged else None
        require_same_again(sequences, is_backward, gated, replay)
        rows.append(
            Row(
                method="race",
                settings=case.settings(is_backward) | {"outputs": outputs_of(sequences, is_backward)},
                shape=case.shape,
                bytes=race_bytes(case.shape, case.causal, is_backward, case.element),
                timing=timing,
                stage_us=split,
                peak_bytes=peak,
            )
        )
    return rows


def clock_for(clock: Clock, work: Callable[[], Any]) -> Clock:
    """A clock with as many runs as `work`, which is run for it, is short enough for."""
    return clock.repeating(*(SHORT if clock.repeating(1, 1).time(work).us < SHORT_US else LONG))


def _like(query: Any, case: Case) -> Any:
    """An array for the gradient of the value, which has the query's shape here, filled."""
    above = empty(query.shape, dtype_of(case))
    fill(above, 3)
    return above


def _check(case: Case, inputs: SequenceInputs, sequences: Any, above: Any, run: Callable[[], None]) -> None:
    """The gate of borders, then that of every row, on outputs that were NaN before the run."""
    borders = Borders.of(inputs)
    borders.put(inputs.values, above)
    poison_outputs(sequences)
    run()
    outputs = borders.outputs(sequences)
    fill(inputs.values, 2)
    fill(above, 3)
    poison_outputs(sequences)
    run()
    totals = require_exact(sequences, inputs, above, case.causal, borders.watched)
    borders.require(outputs, inputs, case.causal, totals)
