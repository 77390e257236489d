"""Building the index of a whole cache, and appending one token, each checked against the reference."""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.bench import gate
from socket_gpu.bench.byte_model import append_bytes, build_bytes
from socket_gpu.bench.clock import Clock, Timing, capture
from socket_gpu.bench.inputs import Inputs, normal_bfloat16
from socket_gpu.bench.rows import Row
from socket_gpu.bench.shape import SEED
from socket_gpu.socket_lsh import hash_keys
from socket_gpu.socket_lsh.bench_step import index_bytes_a_token
from socket_gpu.socket_lsh.cases import INDEX_SHAPE, RELEASED
from socket_gpu.socket_lsh.codes import LANES
from socket_gpu.socket_lsh.gate import check_index
from socket_gpu.socket_lsh.index_gate import require_codes, require_norms
from socket_gpu.socket_lsh.plan import DecodePlan
from socket_theory.core.rng import Key


def measure_index(clock: Clock) -> list[Row]:
    """The rows of an index build (hash of every key, norm of every value) and of an append of one token.

    Raises
    ------
    GateError
        If a sampled code or norm is wrong.
    """
    inputs = Inputs.draw(INDEX_SHAPE)
    method, key = RELEASED.method, Key.from_seed(SEED)
    cache = method.prepare(inputs.keys, inputs.values, key=key, capacity=INDEX_SHAPE.kv_len + LANES)
    plan = DecodePlan(cache, num_qo_heads=INDEX_SHAPE.num_qo_heads, budget=RELEASED.budget)
    build, append = _time_build(plan, inputs, clock), _time_append(plan, clock)
    index = index_bytes_a_token(cache)
    common: dict[str, Any] = {
        "settings": asdict(method) | {"seed": SEED},
        "shape": INDEX_SHAPE,
        "nominal_bits": method.nominal_bits,
        "bits_per_token": 8 * index,
    }
    return [
        Row(method="socket_index_build", bytes=build_bytes(INDEX_SHAPE, index), timing=build, **common),
        Row(method="socket_append", bytes=append_bytes(INDEX_SHAPE, index), timing=append, **common),
    ]


def _time_build(plan: DecodePlan, inputs: Inputs, clock: Clock) -> Timing:
    codes, norms = (plan.cache.index.arrays[name] for name in ("codes", "value_norms"))

    def build() -> None:
        hash_keys.hash_into(codes, inputs.keys, plan.spans, plan.scorer.layout, plan.scorer.matrix, plan.scorer.center)
        hash_keys.norms_into(norms, inputs.values, plan.spans)

    build()
    replay = capture(build)
    gate.poison(codes, norms)
    replay()
    check_index(plan.cache)
    return clock.time(replay)


def _time_append(plan: DecodePlan, clock: Clock) -> Timing:
    """Every append goes to the same slot: the spans are put back before each."""
    random = import_module("cupy").random.RandomState(SEED + 1)
    batch, heads, _, dim = plan.cache.keys.shape
    keys, values, new_keys, new_values = (normal_bfloat16(random, (batch, heads, 1, dim)) for _ in range(4))
    spans = plan.spans.copy()

    def put_back(_: int) -> None:
        plan.spans[...] = spans

    def append() -> None:
        plan.append(keys, values)

    append()
    replay = capture(append)
    put_back(0)
    keys[...], values[...] = new_keys, new_values
    replay()
    plan.check()
    _check_appended(plan, keys, values)
    return clock.time(replay, before=put_back)


def _check_appended(plan: DecodePlan, keys: Any, values: Any) -> None:
    cache = plan.cache
    host, slot = cache.backend.to_host, int(cache.kv_range[0].sum())
    if not (host(plan.spans) == cache.kv_range + np.array([0, 1])).all():
        raise gate.GateError("an append of one token did not lengthen every sequence by one.")
    for sequence, head in gate.sampled_rows(*cache.keys.shape[:2]):
        name = f"the token appended to sequence {sequence}, KV head {head}"
        key, value = host(keys[sequence, head]), host(values[sequence, head])
        stored = [host(array[sequence, head])[slot : slot + 1] for array in (cache.keys, cache.values)]
        if not ((stored[0] == key).all() and (stored[1] == value).all()):
            raise gate.GateError(f"the key or value of {name} was not stored.")
        words = host(cache.index.arrays["codes"][sequence, head])[slot // LANES :]
        codes = plan.scorer.layout.unpack(words, slot % LANES + 1)[:, -1:]
        require_codes(name, codes, key, cache.sample)
        require_norms(name, host(cache.index.arrays["value_norms"][sequence, head])[slot : slot + 1], value)
