"""What the reference costs on a laptop: printed by pytest-benchmark, not asserted. One head, d=128, P=10, L=60."""

import tracemalloc

import numpy as np
import pytest

pytest.importorskip("pytest_benchmark", reason="pip install 'socket-theory[test]'")

from socket_theory import Budget, Key, Socket
from socket_theory.core.backend import operations

METHOD = Socket.as_released()
BUDGET = Budget(fraction=1 / 33, sink=64, window=64)
KEY = Key.from_seed(0)


def inputs(slots):
    draw = KEY.generator()
    query = draw.standard_normal((1, 128), dtype=np.float32)
    keys, values = draw.standard_normal((2, 1, slots, 128), dtype=np.float32)
    return query, keys, values


@pytest.mark.slow
@pytest.mark.benchmark(group="prepare")
def test_prepare(benchmark):
    _, keys, values = inputs(32768)
    cache = benchmark.pedantic(METHOD.prepare, args=(keys, values), kwargs={"key": KEY}, rounds=5, warmup_rounds=1)
    assert cache.kv_len == 32768


@pytest.mark.slow
@pytest.mark.benchmark(group="scores")
def test_scores(benchmark):
    query, keys, values = inputs(32768)
    cache = METHOD.prepare(keys, values, key=KEY)
    arguments = (query[None], cache.index.arrays["codes"], cache.kv_range, cache.sample, "tanh_scaled", 0.4)
    scores = benchmark(operations("socket_lsh", cache.backend).soft_scores, *arguments)
    assert scores.shape == (1, 1, 32768)


@pytest.mark.slow
@pytest.mark.benchmark(group="step")
@pytest.mark.parametrize("slots", [8192, 32768, 131072])
def test_step(benchmark, slots):
    query, keys, values = inputs(slots)
    cache = METHOD.prepare(keys, values, key=KEY)
    estimate = benchmark(METHOD.attend, query, cache, budget=BUDGET)
    assert estimate.stats.kept[0] == BUDGET.kept(slots)


@pytest.mark.slow
def test_extra_memory_at_32768_tokens_stays_below_150_megabytes():
    query, keys, values = inputs(32768)
    tracemalloc.start()
    try:
        METHOD.attend(query, METHOD.prepare(keys, values, key=KEY), budget=BUDGET)
        assert tracemalloc.get_traced_memory()[1] < 150e6
    finally:
        tracemalloc.stop()
