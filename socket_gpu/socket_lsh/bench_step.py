"""SOCKET's planned decode step, gated before its time is taken and again on what the last replay left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from socket_gpu.bench.byte_model import socket_bytes
from socket_gpu.bench.clock import REPEATS, Clock, capture
from socket_gpu.bench.gate import GateError, poison
from socket_gpu.bench.inputs import QUERIES, Inputs
from socket_gpu.bench.layouts import laid_out, named
from socket_gpu.bench.rows import Row
from socket_gpu.bench.shape import SEED, Shape
from socket_gpu.bench.stages import next_query, stage_us
from socket_gpu.socket_lsh.cases import Setting
from socket_gpu.socket_lsh.gate import check_index, check_step
from socket_gpu.socket_lsh.plan import DecodePlan
from socket_theory.core.cache import Cache
from socket_theory.core.rng import Key


def measure_socket(inputs: Inputs, shape: Shape, setting: Setting, clock: Clock) -> Row:
    """The row of one setting.

    Raises
    ------
    GateError
        If anything the step computes is wrong.
    """
    method, budget = setting.method, setting.budget
    cache = method.prepare(*laid_out(inputs, setting.layout), key=Key.from_seed(SEED))
    plan = DecodePlan(cache, num_qo_heads=shape.num_qo_heads, budget=budget)
    query = inputs.queries[0].copy()
    check_index(cache)
    _poison_outputs(plan)
    plan.run(query)
    check_step(plan, query)

    replay = capture(lambda: plan.run(query))
    searches: list[Any] = []
    # Selection starts from a floor that follows the last step's threshold, so every replay has a new query.
    put = next_query(inputs, query)
    timing = clock.time(replay, before=put, after=lambda: searches.append(plan.searches.copy()))
    # The query's preparation is the beginning of the launch that scores, and counts there.
    split = stage_us(plan.stages(query), put, clock, timing.us)
    _check_liveness(plan, inputs, query, replay)

    misses = {
        "steps": _share_of_misses(searches),
        "us": clock.time(replay, before=_first_query(plan, inputs, query)).us,
    }
    kept, index = budget.kept(shape.kv_len), index_bytes_a_token(cache)
    return Row(
        method="socket",
        settings=asdict(method) | {"sink": budget.sink, "window": budget.window, "seed": SEED} | named(setting.layout),
        shape=shape,
        nominal_bits=method.nominal_bits,
        bits_per_token=8 * index,
        kept_tokens=kept,
        bytes=socket_bytes(shape, kept, index),
        timing=timing,
        stage_us=split,
        misses=misses,
    )


def index_bytes_a_token(cache: Cache) -> int:
    """Bytes of the index, padding to blocks included, that a KV head stores for a token."""
    return sum(int(array.nbytes) for array in cache.index.arrays.values()) // int(np.prod(cache.rows.shape[:3]))


def _first_query(plan: DecodePlan, inputs: Inputs, query: Any) -> Callable[[int], None]:
    """As `next_query`, with nothing known of the step before: every head searches all its scores."""
    put = next_query(inputs, query)

    def forget(run: int) -> None:
        put(run)
        plan.forget()

    return forget


def _share_of_misses(searches: list[Any]) -> float:
    """The share of steps, the warm-up's left out, in which a head searched all its scores."""
    counts = np.array([array.tolist() for array in searches])
    missed = np.any(np.diff(counts, axis=0) > 0, axis=1)
    return round(float(np.mean(missed[-REPEATS:])), 4)


def _check_liveness(plan: DecodePlan, inputs: Inputs, query: Any, replay: Callable[[], None]) -> None:
    """A replay over poisoned outputs passes the gate for the query it was given, and selects what an eager run does."""
    query[...] = inputs.queries[QUERIES // 2]
    _poison_outputs(plan)
    replay()
    check_step(plan, query)
    replayed = plan.indices.copy()
    plan.run(query)
    if not bool((replayed == plan.indices).all()):
        raise GateError("the replayed graph selects other tokens than an eager run of the same query.")


def _poison_outputs(plan: DecodePlan) -> None:
    poison(plan.scores, plan.indices, plan.value, plan.lse)
