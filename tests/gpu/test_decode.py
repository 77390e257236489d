"""The planned decode step: equal to the eager one, alive under graph replay, and bounded by its capacity."""

import numpy as np
import pytest

from socket_gpu import missing_requirement

MISSING = missing_requirement()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]

from socket_theory import Budget, HardLSH, Key, Socket  # noqa: E402
from socket_theory.testing import assert_close  # noqa: E402

KEY = Key.from_seed(31)
SPANS = {"kv_start": [0, 37], "kv_len": [2000, 700]}
METHODS = [Socket.as_released(), Socket(center_keys=True), Socket(query_map="tanh", temperature=0.4), HardLSH()]


def problem(num_qo_heads=8, num_kv_heads=2, slots=2000, head_dim=64, dtype="float32"):
    import cupy

    draw = KEY.generator()
    query = 2 * draw.standard_normal((2, num_qo_heads, head_dim))
    keys, values = draw.standard_normal((2, 2, num_kv_heads, slots, head_dim))
    return [cupy.asarray(a.astype(dtype)) for a in (query, keys, values)]


def plan_of(method, query, keys, values, budget, capacity=2048, **options):
    from socket_gpu.decode import DecodePlan

    cache = method.prepare(keys, values, key=KEY, capacity=capacity, **options)
    return cache, DecodePlan(cache, num_qo_heads=query.shape[1], budget=budget)


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("group", ["per_head", "shared"])
def test_a_run_is_the_eager_step(method, group):
    query, keys, values = problem()
    budget = Budget(tokens=100, sink=8, window=16, group=group)
    cache, plan = plan_of(method, query, keys, values, budget, **SPANS)
    for step in range(3):  # the floor of the survivors moves between steps, the result does not
        value, lse = plan.run(query * (1 + step))
        plan.check()
        eager = method.attend(query * (1 + step), cache, budget=budget)
        kept = np.repeat(plan.indices.get(), 4, axis=1) if group == "shared" else plan.indices.get()
        np.testing.assert_array_equal(kept, eager.indices.get())
        assert_close(value.get(), eager.value.get(), "float32")
        assert_close(lse.get(), eager.lse.get(), "float32")


def test_a_replayed_graph_follows_its_query_and_its_appended_tokens():
    import cupy

    query, keys, values = problem()
    method, budget = Socket.as_released(), Budget(tokens=100, sink=8, window=16)
    cache, plan = plan_of(method, query, keys, values, budget, **SPANS)
    new_keys, new_values = keys[:, :, :1].copy(), values[:, :, :1].copy()
    plan.run(query)
    before = plan.indices.get()
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
    eager = method.attend(query, expected, budget=budget)
    graph.launch(cupy.cuda.get_current_stream())
    plan.check()
    assert not np.array_equal(before, plan.indices.get())
    np.testing.assert_array_equal(plan.indices.get(), eager.indices.get())
    assert_close(plan.value.get(), eager.value.get(), "float32")
    np.testing.assert_array_equal(plan.spans.get(), expected.spans)


def test_an_append_past_the_capacity_is_dropped_and_reported():
    query, keys, values = problem(slots=60)
    method, budget = Socket(num_tables=9), Budget(tokens=10)
    plan = plan_of(method, query, keys, values, budget, capacity=61)[1]
    plan.append(keys[:, :, :1].copy(), values[:, :, :1].copy())
    plan.check()
    plan.append(keys[:, :, :1].copy(), values[:, :, :1].copy())
    with pytest.raises(RuntimeError, match="exceeded the planned capacity"):
        plan.check()
    assert plan.spans.get()[:, 1].tolist() == [61, 61]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_codes_equal_the_references_outside_the_rounding_margin(dtype):
    from socket_gpu.layout import CodeLayout
    from socket_theory.backend import resolve_backend
    from socket_theory.hashing import SignHash, hash_keys
    from socket_theory.testing import rounding_margin

    _, keys, _ = problem(dtype=dtype)
    planes = SignHash(60, 10, 64).draw(KEY)
    spans = np.array([[0, 2000], [0, 2000]])
    words = resolve_backend("cupy").hash_keys(keys, spans, planes, None).get()
    codes, host = CodeLayout(60, 10).unpack(words, 2000), keys.get()
    certain = rounding_margin(host[0, 0], planes)
    place = (1 << np.arange(10, dtype=np.uint16))[None, :, None]
    mask = (certain * place).sum(axis=1).astype(np.uint16)
    expected = hash_keys(host[0, 0], planes)
    np.testing.assert_array_equal(codes[0, 0] & mask, expected & mask)
    assert certain.mean() > 0.999
