"""The planned decode step: equal to the eager one, alive under graph replay, and bounded by its capacity."""

from dataclasses import replace

import numpy as np
import pytest

from socket_gpu.socket_lsh.codes import CodeLayout
from socket_theory import Budget, HardLSH, Socket
from socket_theory.testing import assert_close, rounding_margin

pytestmark = pytest.mark.gpu
SPANS = [(0, 2000), (37, 700)]
METHODS = [Socket.as_released(), Socket(center_keys=True), Socket(query_map="tanh", temperature=0.4), HardLSH()]
BUDGET = Budget(tokens=100, sink=8, window=16)


def held(cache):
    """Every array with an entry a token."""
    return [cache.keys, cache.values, *cache.index.arrays.values()]


def step_of(device, method, slots=2000, capacity=2048, spans=SPANS):
    """A query and a cache of two sequences with room to grow."""
    problem = device.problem(method, num_qo_heads=8, num_kv_heads=2, slots=slots, spans=spans)
    return device.put(problem.query), device.prepare(method, problem, capacity=capacity)


def new_tokens(device, cache, count):
    shape = (2, *cache.keys.shape[:2], count, cache.keys.shape[-1])
    return map(device.put, np.random.default_rng(1).standard_normal(shape).astype(np.float32))


def same_step(device, plan, eager):
    indices = device.get(plan.indices)
    kept = np.repeat(indices, eager.indices.shape[1] // indices.shape[1], axis=1)
    np.testing.assert_array_equal(kept, device.get(eager.indices))
    assert_close(device.get(plan.value), device.get(eager.value), "float32")
    assert_close(device.get(plan.lse), device.get(eager.lse), "float32")


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("group", ["query_head", "kv_head"])
def test_a_run_is_the_eager_step(device, method, group):
    budget = Budget(tokens=100, sink=8, window=16, per=group)
    query, cache = step_of(device, method)
    plan = device.plan(cache, query, budget)
    for step in range(3):  # the floor of the survivors moves between steps, the result does not
        plan.run(query * (1 + step))
        plan.check()
        same_step(device, plan, method.attend(query * (1 + step), cache, budget=budget))


def test_a_step_that_was_interrupted_leaves_no_trace_in_a_graph(device, monkeypatch):
    method = Socket.as_released()
    query, cache = step_of(device, method)
    plan = device.plan(cache, query, BUDGET)
    plan.run(query)
    replay = device.captured(lambda: plan.run(query))
    plan.survivors.floors[:, 0] = 0

    def interrupted():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(plan, "_select", interrupted)
        with pytest.raises(KeyboardInterrupt):
            plan.run(-query)
    replay()
    plan.check()
    same_step(device, plan, method.attend(query, cache, budget=BUDGET))


def test_a_token_listed_too_often_for_any_guess_does_not_stop_selection(device):
    """As by replays of a graph with the first stage alone; the list has room for 20 tokens of 100 replays."""
    method, budget = Socket.as_released(), Budget(tokens=10, sink=2, window=3)
    query, cache = step_of(device, method, slots=9000, capacity=9000, spans=[(0, 9000)] * 2)
    plan = device.plan(cache, query, budget)
    plan.run(query)
    floors = np.sort(device.get(plan.totals).reshape(16, -1)[:, 2:8997], axis=1)[:, -20]
    plan.survivors.floors[:, 0] = device.put(floors.view(np.uint32) | np.uint32(2**31))
    score = plan.stages(query)["score"]
    for _ in range(100):
        score()
    listed = device.get(plan.survivors.counts[0])
    assert listed.min() >= 2000
    assert listed.max() <= plan.survivors.keys.shape[1]
    plan.run(query)
    plan.run(query)
    plan.check()
    same_step(device, plan, method.attend(query, cache, budget=budget))


@pytest.mark.parametrize("method", [Socket.as_released(), HardLSH()], ids=str)
def test_runs_and_appends_allocate_nothing(device, method):
    cupy = device.cupy
    if not hasattr(cupy.cuda, "using_allocator"):
        pytest.skip("memory is NumPy's here.")
    query, cache = step_of(device, method)
    plan = device.plan(cache, query, BUDGET)
    tokens = list(new_tokens(device, cache, 1))
    plan.run(query)
    plan.append(*tokens)

    def refuse(size):
        raise MemoryError(f"{size} bytes were asked for.")

    with cupy.cuda.using_allocator(refuse):
        with pytest.raises(MemoryError):
            cupy.zeros(1)
        plan.append(*tokens)
        plan.run(query)
    plan.check()


def test_centred_keys_in_float64_have_the_references_codes(device):
    draw, method = np.random.default_rng(5), Socket(center_keys=True)
    keys = 1e6 + 0.01 * draw.standard_normal((1, 1, 300, 64))
    planes = method.draw(64, device.key)
    found = method.prepare(device.put(keys), device.put(keys), sample=planes, backend=device.engine)
    expected = method.prepare(keys, keys, sample=planes)
    codes = CodeLayout(60, 10).unpack(device.get(found.index.arrays["codes"]), 300)
    certain = rounding_margin(keys[0, 0], planes, expected.index.frozen["center"][0, 0])
    assert certain.mean() > 0.9
    place = (1 << np.arange(10)).astype(np.uint16)[:, None]
    mask = (certain * place).sum(axis=1).astype(np.uint16)
    assert not ((codes[0, 0] ^ expected.index.arrays["codes"][0, 0]) & mask).any()


def test_a_plan_over_taken_and_truncated_sequences_is_their_eager_step(device):
    method = Socket.as_released()
    query, cache = step_of(device, method)
    part = cache.take([1, 0, 1]).truncate([700, 1999, 1])
    query = query[device.put(np.array([1, 0, 1]))]
    plan = device.plan(part, query, BUDGET)
    plan.run(query)
    plan.check()
    same_step(device, plan, method.attend(query, part, budget=BUDGET))


def test_scores_that_underflow_are_ranked_as_the_eager_ones_or_reported(device):
    method, budget = Socket(num_planes=16, query_map="tanh", temperature=1e-3), Budget(tokens=10)
    problem = device.problem(method, head_dim=128, num_qo_heads=8, num_kv_heads=2, slots=50, spans=[(0, 50)])
    cache, query = device.prepare(method, problem), device.put(problem.query)
    plan = device.plan(cache, query, budget)
    plan.run(query)
    try:
        plan.check()
    except RuntimeError as error:
        reported = str(error)
    else:
        reported = None
        same_step(device, plan, method.attend(query, cache, budget=budget))
    assert reported is None or "below 1e-38" in reported


def test_a_replayed_graph_follows_its_query_and_its_appended_tokens(device):
    cupy, method = device.cupy, Socket.as_released()
    query, cache = step_of(device, method)
    plan = device.plan(cache, query, BUDGET)
    new_keys, new_values = new_tokens(device, cache, 1)
    plan.run(query)
    before = device.get(plan.indices)
    cupy.cuda.Device().synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        plan.append(new_keys, new_values)
        plan.run(query)
        graph = stream.end_capture()
    query *= -1
    new_keys += 1
    expected = cache.append(new_keys.copy(), new_values.copy())
    eager = method.attend(query, expected, budget=BUDGET)
    graph.launch(cupy.cuda.get_current_stream())
    plan.check()
    assert not np.array_equal(before, device.get(plan.indices))
    same_step(device, plan, eager)
    np.testing.assert_array_equal(device.get(plan.spans), expected.kv_range)


@pytest.mark.parametrize("method", [Socket.as_released(), Socket(center_keys=True)], ids=str)
def test_appended_tokens_have_the_index_of_prepared_ones_bit_for_bit(device, method):
    query, cache = step_of(device, method, slots=61, capacity=190, spans=[(0, 61), (13, 17)])
    plan = device.plan(cache, query, Budget(tokens=10))
    expected = cache.take([0, 1])
    for count in (1, 5, 32, 64):
        tokens = list(new_tokens(device, cache, count))
        plan.append(*tokens)
        expected = expected.append(*tokens)
    plan.check()
    np.testing.assert_array_equal(device.get(plan.spans), expected.kv_range)
    whole = method.prepare(
        expected.keys,
        expected.values,
        sample=cache.sample,
        **cache.index.frozen,
        kv_start=expected.kv_range[:, 0],
        kv_len=expected.kv_range[:, 1],
        backend=device.engine,
    )
    for left, right, array in zip(held(cache), held(expected), held(whole), strict=True):
        slots = array.shape[2]
        np.testing.assert_array_equal(device.get(left)[:, :, :slots], device.get(array))
        np.testing.assert_array_equal(device.get(right)[:, :, :slots], device.get(array))


def test_an_append_past_the_capacity_is_dropped_and_reported(device):
    method = Socket.as_released()
    query, cache = step_of(device, method, slots=60, capacity=61, spans=[(0, 60), (0, 59)])
    plan = device.plan(cache, query, Budget(tokens=10))
    tokens = list(new_tokens(device, cache, 1))
    plan.append(*tokens)
    plan.check()
    before = [device.get(array)[0] for array in (cache.keys, cache.values)]
    plan.append(*(-2 * token for token in tokens))
    with pytest.raises(RuntimeError, match="exceeded the planned capacity"):
        plan.check()
    # The first sequence is full and stays as it is; the second took its last token.
    assert device.get(plan.spans).tolist() == [[0, 61], [0, 61]]
    for array, unchanged in zip((cache.keys, cache.values), before, strict=True):
        np.testing.assert_array_equal(device.get(array)[0], unchanged)
    full = replace(cache, rows=cache.rows.bind(np.array([[0, 61], [0, 61]]), cache.backend))
    plan.run(query)
    plan.check()
    same_step(device, plan, method.attend(query, full, budget=Budget(tokens=10)))
    whole = method.prepare(cache.keys, cache.values, sample=cache.sample, backend=device.engine)
    same_step(device, plan, method.attend(query, whole, budget=Budget(tokens=10)))
