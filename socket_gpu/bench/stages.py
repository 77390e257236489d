"""Where the time of a planned step goes, for any plan whose step is a row of launches over one query buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from socket_gpu.bench.clock import Clock, capture
from socket_gpu.bench.inputs import Inputs


def next_query(inputs: Inputs, query: Any) -> Callable[[int], None]:
    """What puts a new query in place before every run: the same one again would flatter a step that remembers."""

    def put(run: int) -> None:
        query[...] = inputs.queries[run % len(inputs.queries)]

    return put


def stage_us(
    stages: dict[str, Callable[[], None]], before: Callable[[int], None], clock: Clock, whole: float
) -> dict[str, float]:
    """Where the microseconds of a step go: differences between the medians of its first one, two, … stages.

    Each prefix is a graph of its own, replayed after a flush and `before` like the whole step, which took `whole`; the
    stages it leaves out run afterwards, untimed, so that every replay starts from the state a step leaves. A stage thus
    finds in the L2 cache what the stages before it put there, as in a step, and the stages add up to the whole.
    """
    launches, ends = list(stages.values()), [0.0]
    for count in range(1, len(launches)):
        prefix, rest = capture(in_order(launches[:count])), in_order(launches[count:])
        ends.append(clock.time(prefix, before=before, after=rest).us)
    steps = np.diff([*ends, whole])
    return {name: round(float(step), 2) for name, step in zip(stages, steps, strict=True)}


def in_order(launches: Iterable[Callable[[], None]]) -> Callable[[], None]:
    """One call that makes all these, in their order."""
    launches = list(launches)

    def run() -> None:
        for launch in launches:
            launch()

    return run
