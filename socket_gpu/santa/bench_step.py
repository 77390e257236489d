"""SANTA's planned decode step, gated before its time is taken and again on replays after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_gpu.bench.byte_model import santa_bytes
from socket_gpu.bench.clock import Clock, capture
from socket_gpu.bench.gate import GateError
from socket_gpu.bench.inputs import Inputs
from socket_gpu.bench.layouts import OWN, laid_out, named
from socket_gpu.bench.rows import Row
from socket_gpu.bench.shape import SEED, Shape
from socket_gpu.bench.stages import next_query, stage_us
from socket_gpu.santa.gate import checked_run, require_single_steps
from socket_gpu.santa.plan import SantaPlan
from socket_theory.core.rng import Key
from socket_theory.santa.estimator import Santa


def measure_santa(inputs: Inputs, shape: Shape, method: Santa, clock: Clock, layout: str = OWN) -> Row:
    """The row of a method and a layout; `kept_tokens` is the mean number of distinct rows a head drew in the last step.

    Raises
    ------
    GateError
        If anything the step computes is wrong.
    """
    cache = method.prepare(*laid_out(inputs, layout))
    plan = SantaPlan(cache, num_qo_heads=shape.num_qo_heads, key=Key.from_seed(SEED))
    query = inputs.queries[0].copy()
    checked_run(plan, query, lambda: plan.run(query))

    host, put = cache.backend.to_host, next_query(inputs, query)
    replay = capture(lambda: plan.run(query))
    steps = [plan.steps.copy()]
    timing = clock.time(replay, before=put, after=lambda: steps.append(plan.steps.copy()))
    require_single_steps([host(array) for array in steps])
    split = stage_us(plan.stages(query), put, clock, timing.us)
    _check_liveness(plan, inputs, query, replay)

    draws = host(plan.draws)
    shared = draws.reshape(shape.batch, shape.num_kv_heads, -1)
    return Row(
        method="santa",
        settings=asdict(method) | {"seed": SEED} | named(layout),
        shape=shape,
        kept_tokens=round(float(distinct_rows(draws).mean())),
        bytes=santa_bytes(shape, int(distinct_rows(shared).sum())),
        timing=timing,
        stage_us=split,
    )


def distinct_rows(draws: NDArray[Any]) -> NDArray[np.int64]:
    """How many different slots are drawn, -1 left out: [..., M] -> [...]."""
    ordered = np.sort(draws, axis=-1)
    return np.asarray((np.diff(ordered, axis=-1, prepend=-1) > 0).sum(axis=-1))


def _check_liveness(plan: SantaPlan, inputs: Inputs, query: Any, replay: Callable[[], None]) -> None:
    """Two replays pass the gate with a query put in place since: each draws anew, and what an eager run of it does."""
    query[...] = inputs.queries[len(inputs.queries) // 2]
    eager = SantaPlan(plan.cache, num_qo_heads=query.shape[1], key=plan.key)
    eager.steps[...] = plan.steps
    drawn = []
    for _ in range(2):
        checked_run(plan, query, replay)
        eager.run(query)
        if not bool((eager.draws == plan.draws).all()):
            raise GateError("the replayed graph draws other tokens than an eager run of the same step and query.")
        drawn.append(plan.draws.copy())
    if bool((drawn[0] == drawn[1]).all()):
        raise GateError("two replays of the graph draw the same tokens.")
