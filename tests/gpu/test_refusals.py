"""What a GPU step does not compute it refuses or reports with a sentence; it is never silently wrong."""

import numpy as np
import pytest

from socket_gpu.socket_lsh.plan import DecodePlan
from socket_theory import Budget, Dense, Key, Socket
from socket_theory.core.checks import bfloat16
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.core.rows import DenseRows
from socket_theory.testing import TOLERANCES, assert_close

pytestmark = pytest.mark.gpu
METHOD, BUDGET = Socket.as_released(), Budget(tokens=100, sink=8, window=16)


@pytest.fixture
def step(device):
    """A query on the device, its cache and its plan."""
    problem = device.problem(METHOD, num_qo_heads=8, num_kv_heads=2, slots=400, spans=[(0, 400), (3, 300)])
    cache, query = device.prepare(METHOD, problem, capacity=401), device.put(problem.query)
    return query, cache, device.plan(cache, query, BUDGET)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["query", "keys", "values"])
def test_a_run_that_is_not_finite_is_reported_once(device, step, where, bad):
    query, cache, plan = step
    # Slot 0 is a sink, so it is kept.
    target = {"query": query[0, 3], "keys": cache.keys[0, 1, 0], "values": cache.values[0, 1, 0]}[where]
    before = target.copy()
    target[5] = bad
    plan.run(query)
    with pytest.raises(RuntimeError, match="an output is not finite: check the query, keys and values"):
        plan.check()
    plan.check()
    target[...] = before
    plan.run(query)
    plan.check()
    eager = METHOD.attend(query, cache, budget=BUDGET)
    np.testing.assert_array_equal(device.get(plan.indices), device.get(eager.indices))
    assert_close(device.get(plan.value), device.get(eager.value), "float32")


@pytest.mark.parametrize("num_runs", [1, 20])
def test_scores_that_are_nan_after_a_first_step_end(device, step, num_runs):
    query, cache, plan = step
    for _ in range(num_runs):
        plan.run(query)
    for bad in (np.nan, np.inf):
        plan.run(query * bad)
        with pytest.raises(RuntimeError, match="an output is not finite"):
            plan.check()
    norms = cache.index.arrays["value_norms"].view(np.uint16)  # bfloat16
    right = norms.copy()
    norms[:, :, 10:200] = 0x7FC0  # NaN
    plan.run(query)
    plan.status.fill(0)
    norms[...] = right
    plan.run(query)
    plan.check()
    eager = METHOD.attend(query, cache, budget=BUDGET)
    np.testing.assert_array_equal(device.get(plan.indices), device.get(eager.indices))


def test_a_query_of_another_kind_is_refused(device, step):
    query, _, plan = step
    with pytest.raises(TypeError, match="query is of type ndarray: pass a CuPy array"):
        plan.run(device.get(query))
    with pytest.raises(TypeError, match="query has dtype float64: pass float32"):
        plan.run(query.astype(np.float64))
    for shape in ((2, 4, 64), (1, 8, 64), (2, 8, 32), (2, 8, 1, 64)):
        with pytest.raises(ValueError, match=r"query has shape .*: pass \(2, 8, 64\)"):
            plan.run(device.cupy.zeros(shape, np.float32))
    with pytest.raises(ValueError, match=r"query is not C-contiguous: pass cupy.ascontiguousarray\(query\)"):
        plan.run(device.cupy.zeros((2, 64, 8), np.float32).swapaxes(1, 2))


def test_appended_tokens_of_another_kind_are_refused(device, step):
    _, _, plan = step
    token = device.cupy.zeros((2, 2, 1, 64), np.float32)
    with pytest.raises(TypeError, match="keys is of type ndarray: pass a CuPy array"):
        plan.append(device.get(token), token)
    with pytest.raises(TypeError, match="values has dtype float16: pass float32"):
        plan.append(token, token.astype(np.float16))
    with pytest.raises(ValueError, match="keys has shape"):
        plan.append(device.cupy.zeros((2, 1, 1, 64), np.float32), token)
    with pytest.raises(ValueError, match="values has shape"):
        plan.append(token, device.cupy.zeros((2, 2, 2, 64), np.float32))
    assert device.get(plan.spans).tolist() == plan.cache.kv_range.tolist()


def test_a_plan_needs_a_method_with_kernels_a_gpu_cache_and_a_head_ratio(device, step):
    query, cache, _ = step
    with pytest.raises(ValueError, match="pass a positive multiple of 2 query heads"):
        device.plan(cache, query[:, :5], BUDGET)
    one = {"kv_start": cache.kv_start, "kv_len": 1}
    host = METHOD.prepare(device.get(cache.keys), device.get(cache.values), sample=cache.sample, **one)
    with pytest.raises(ValueError, match="the cache is on backend 'numpy'"):
        device.plan(host, query, BUDGET)
    with pytest.raises(TypeError, match="Dense has no GPU decode plan"):
        device.plan(Dense().prepare(cache.keys, cache.values, **one), query, BUDGET)
    with pytest.raises(ValueError, match="sm_scale"):
        device.plan(cache, query, BUDGET, sm_scale=-1.0)
    for budget in (None, 100):
        with pytest.raises(TypeError, match=r"budget is of type \w+: pass Budget\(tokens=n\)"):
            device.plan(cache, query, budget)
    with pytest.raises(ValueError, match="num_qo_heads=-2 was given: pass an integer of at least 1"):
        DecodePlan(cache, num_qo_heads=-2, budget=BUDGET)
    with pytest.raises(TypeError, match="out_dtype has dtype int32: pass one of float16"):
        device.plan(cache, query, BUDGET, out_dtype=np.int32)


def test_an_output_that_its_dtype_cannot_hold_is_reported(device, step):
    query, cache, _ = step
    plan = device.plan(cache, query, BUDGET, out_dtype=np.float16)
    plan.run(query)
    plan.check()
    cache.values[0, 1, :, 5] = 1e5
    plan.run(query)
    with pytest.raises(RuntimeError, match=r"an output is not finite: .*or pass a wider out_dtype"):
        plan.check()


def test_mixed_libraries_are_refused(device, step):
    query, cache, _ = step
    with pytest.raises(TypeError, match="query is a numpy array and the cache holds cupy arrays"):
        METHOD.attend(device.get(query), cache, budget=BUDGET)
    with pytest.raises(TypeError, match="keys is a cupy array and values a numpy array"):
        METHOD.prepare(cache.keys, device.get(cache.values), sample=cache.sample)


# head_dim of keys, of values, dtype of the cache, of the query, and what a refusal names.
ODD = [
    (96, 96, "bfloat16", "bfloat16", "head_dim"),
    (80, 80, "float32", "float32", "head_dim"),
    (20, 20, "float16", "float16", "head_dim"),
    (132, 132, "float32", "float32", "head_dim"),
    (66, 66, "float64", "float64", "head_dim"),
    (64, 32, "float32", "float32", "values"),
    (64, 128, "float32", "float32", "values"),
    (64, 64, "bfloat16", "float32", "dtype"),
    (64, 64, "float32", "float64", "dtype"),
    (64, 64, "float32", "float16", "dtype"),
]


def attempt(call):
    """What a call gives, or the sentence with which it refuses."""
    try:
        return call()
    except (TypeError, ValueError) as error:
        return str(error)


@pytest.mark.parametrize(("dim", "value_dim", "key_type", "query_type", "named"), ODD)
@pytest.mark.parametrize("planned", [False, True])
def test_the_odd_is_computed_or_refused(device, dim, value_dim, key_type, query_type, named, planned):
    draw, types = np.random.default_rng(3), [bfloat16() if t == "bfloat16" else t for t in (query_type, key_type)]
    query = draw.standard_normal((1, 4, dim)).astype(types[0])
    keys = draw.standard_normal((1, 2, 90, dim)).astype(types[1])
    values = draw.standard_normal((1, 2, 90, value_dim)).astype(types[1])

    def step():
        cache = METHOD.prepare(device.put(keys), device.put(values), key=Key.from_seed(1), backend=device.engine)
        if not planned:
            estimate = METHOD.attend(device.put(query), cache, budget=Budget(tokens=20))
            return estimate.indices, estimate.value
        plan = device.plan(cache, query, Budget(tokens=20))
        plan.run(device.put(query))
        plan.check()
        return plan.indices, plan.value

    found = attempt(step)
    if isinstance(found, str):
        assert named in found
    else:
        indices, value = map(device.get, found)
        rows = DenseRows(keys, values, np.array([[0, 90]]), NumpyBackend())
        expected, _ = NumpyBackend().attend(query, rows, indices, 1 / np.sqrt(dim))
        assert_close(value, expected, max((query_type, key_type), key=TOLERANCES.get))


def test_appended_tokens_between_16_bytes_are_refused(device, step):
    _, _, plan = step
    token = device.cupy.zeros(2 * 2 * 64 + 1, np.float32)[1:].reshape(2, 2, 1, 64)
    with pytest.raises(ValueError, match="keys starts between multiples of 16 bytes: pass a copy"):
        plan.append(token, token)


def test_tokens_between_16_bytes_are_appended_to_a_cache_as_others_are(device):
    draw, cupy = np.random.default_rng(6), device.cupy
    rows = [device.put(draw.standard_normal((1, 2, 40, 64)).astype(np.float16)) for _ in range(2)]
    cache = METHOD.prepare(*rows, key=Key.from_seed(1), backend=device.engine)
    token = device.put(draw.standard_normal((1, 2, 3, 64)).astype(np.float16))
    shifted = cupy.empty(token.size + 1, np.float16)[1:].reshape(token.shape)
    shifted[...] = token
    found, expected = cache.append(shifted, shifted), cache.take([0]).append(token, token)
    for left, right in zip(*((c.keys, c.values, *c.index.arrays.values()) for c in (found, expected)), strict=True):
        np.testing.assert_array_equal(device.get(left), device.get(right))


def test_a_check_says_all_that_went_wrong(device, step):
    query, _, plan = step
    token = device.cupy.ones((2, 2, 1, 64), np.float32)
    plan.append(token, token)
    plan.append(token, token)
    plan.run(query * np.nan)
    with pytest.raises(RuntimeError, match=r"exceeded the planned capacity.*is not finite"):
        plan.check()
    with pytest.raises(ValueError, match=r"keys has shape \(2, 2, 0, 64\): pass \[B, Hkv, T, D\] with at least one"):
        plan.append(token[:, :, :0], token[:, :, :0])


@pytest.mark.parametrize(("key_type", "value_type"), [("float16", "float32"), ("float32", "float16")])
def test_values_of_another_dtype_are_refused(device, key_type, value_type):
    draw = np.random.default_rng(7)
    keys, values = (device.put(draw.standard_normal((1, 2, 40, 64)).astype(t)) for t in (key_type, value_type))
    query = device.put(draw.standard_normal((1, 4, 64)).astype(key_type))
    cache = METHOD.prepare(keys, values, key=Key.from_seed(1), backend=device.engine)
    sentence = f"values have dtype {value_type} and keys {key_type}: pass values of the keys'"
    with pytest.raises(TypeError, match=sentence):
        METHOD.attend(query, cache, budget=Budget(tokens=20))
    with pytest.raises(TypeError, match=sentence):
        device.plan(cache, query, Budget(tokens=20))


def test_rows_and_heads_beyond_the_grid_are_refused(device):
    draw, cupy = np.random.default_rng(4), device.cupy
    scores, spans = cupy.zeros((70_000, 1, 4), np.float32), np.tile([[0, 4]], (70_000, 1))
    with pytest.raises(ValueError, match="70000 sequences times heads were given: pass at most 65535"):
        device.engine.select(scores, spans, Budget(tokens=2), 1)
    with pytest.raises(ValueError, match="head_dim=512 was given: the GPU takes at most 256"):
        device.engine.store(cupy.zeros((1, 1, 3, 512), np.float32), None)
    rows = [device.put(draw.standard_normal((1, 1, 40, 256)).astype(np.float32)) for _ in range(2)]
    cache = METHOD.prepare(*rows, key=Key.from_seed(1), backend=device.engine)
    query = device.put(draw.standard_normal((1, 64, 256)).astype(np.float32))
    with pytest.raises(ValueError, match="64 query heads of head_dim=256 share a list: pass a budget"):
        device.plan(cache, query, Budget(tokens=9, per="kv_head"))
