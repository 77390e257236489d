"""The planned RACE step: the reference's, alive under graph replay, as fast with a million tokens as with few."""

import numpy as np
import pytest

from socket_theory import BorrowedRows, Dense, Race, Santa
from socket_theory.core.checks import bfloat16
from socket_theory.testing import assert_close, assert_rounded

pytestmark = pytest.mark.gpu
METHOD = Race(4, 4, 1.0)
SPANS = {"kv_start": [0, 37, 5], "kv_len": [300, 125, 1]}
DTYPES = ["float16", "bfloat16", "float32", "float64"]
SHAPES = [(Race(3, 5, 2.0), 128, 64, 7), (Race(5, 8, 0.5), 64, 128, 1), (Race(12, 1, 6.0), 16, 256, 2)]


def element(name):
    return bfloat16() if name == "bfloat16" else np.dtype(name)


def normal(seed, *shape, dtype="bfloat16"):
    return np.random.default_rng(seed).standard_normal(shape).astype(element(dtype))


def prepared(device, method, keys, values, **options):
    """The same cache on the host and on the device, of host arrays."""
    options = {"key": device.key} | options
    host = method.prepare(keys, values, **options)
    return host, method.prepare(device.put(keys), device.put(values), backend=device.engine, **options)


def step_of(device, method=METHOD, dim=64, length=64, group=4, dtype="bfloat16", capacity=310):
    """A query on the host, caches of three ragged sequences with room to grow, and the plan of that on the device."""
    shapes = (3, 2 * group, dim), (3, 2, 300, dim), (3, 2, 300, length)
    query, keys, values = (normal(seed, *shape, dtype=dtype) for seed, shape in enumerate(shapes))
    host, cache = prepared(device, method, keys, values, capacity=capacity, **SPANS)
    return query, host, cache, cache.plan(2 * group)


def require_reference(device, plan, query, host):
    """What a plan holds after a run is the reference's step over a cache on the host, rounded once."""
    exact = host.method.attend(query, host, out_dtype=np.float64)
    for array, expected in ((plan.value, exact.value), (plan.lse, exact.lse)):
        found = device.get(array)
        if found.dtype == np.float64:
            assert_close(found, expected, "float64")
        else:
            assert_rounded(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_step_and_its_appends_are_the_references(device, shape, dtype):
    method, dim, length, group = shape
    query, host, cache, plan = step_of(device, method, dim, length, group, dtype)
    for array in (plan.value, plan.lse):
        array.view(np.uint8)[...] = 0xFF
    plan.run(device.put(query))
    require_reference(device, plan, query, host)
    eager = method.attend(device.put(query), cache)
    assert_close(device.get(plan.value), device.get(eager.value), dtype)
    for tokens in (1, 2, 7):
        new = normal(tokens, 3, 2, tokens, dim, dtype=dtype), normal(-1 + tokens, 3, 2, tokens, length, dtype=dtype)
        plan.append(*map(device.put, new))
        host = host.append(*new)
        plan.run(device.put(query))
        require_reference(device, plan, query, host)
    plan.check()
    np.testing.assert_array_equal(device.get(plan.spans), host.kv_range)


def test_one_token_is_the_whole_output(device):
    query, keys, values = (
        normal(seed, *shape) for seed, shape in enumerate(((1, 14, 64), (1, 2, 1, 64), (1, 2, 1, 64)))
    )
    host, cache = prepared(device, METHOD, keys, values)
    plan = cache.plan(14)
    value, _ = plan.run(device.put(query))
    plan.check()
    np.testing.assert_array_equal(device.get(value), np.repeat(values[:, :, 0], 7, axis=1))
    require_reference(device, plan, query, host)


def test_many_tokens_are_appended_at_once(device):
    query, keys, values = (
        normal(seed, *shape) for seed, shape in enumerate(((1, 4, 64), (1, 2, 4097, 64), (1, 2, 4097, 64)))
    )
    host, _ = prepared(device, METHOD, keys, values)
    plan = prepared(device, METHOD, keys[:, :, :1], values[:, :, :1], capacity=4097)[1].plan(4)
    plan.append(*(device.put(array[:, :, 1:].copy()) for array in (keys, values)))
    plan.run(device.put(query))
    plan.check()
    require_reference(device, plan, query, host)
    for found, name in ((plan.mass, "mass"), (plan.weighted, "weighted")):
        expected = host.index.arrays[name]
        np.testing.assert_allclose(device.get(found).reshape(expected.shape), expected, rtol=1e-11, atol=1e-11)


def test_the_sums_of_a_cache_stay_as_they_were_planned(device):
    query, host, cache, plan = step_of(device)
    plan.append(*(device.put(normal(seed, 3, 2, 1, 64)) for seed in (1, 2)))
    for name, array in cache.index.arrays.items():
        np.testing.assert_allclose(device.get(array), host.index.arrays[name], rtol=1e-12, atol=1e-12)
    again = cache.plan(8)
    again.run(device.put(query))
    require_reference(device, again, query, host)


def test_a_replayed_graph_follows_its_query_and_its_tokens(device):
    query, host, _, plan = step_of(device)
    asked, keys, values = (device.put(array) for array in (query, normal(1, 3, 2, 2, 64), normal(2, 3, 2, 2, 64)))

    def append_and_run():
        plan.append(keys, values)
        plan.run(asked)

    append_and_run()
    host = host.append(device.get(keys), device.get(values))
    replay = device.captured(append_and_run)
    for seed in range(10, 14):
        given = [normal(seed + 10 * i, *array.shape) for i, array in enumerate((asked, keys, values))]
        for array, new in zip((asked, keys, values), given, strict=True):
            array[...] = device.put(new)
        replay()
        plan.check()
        host = host.append(*given[1:])
        require_reference(device, plan, given[0], host)
        np.testing.assert_array_equal(device.get(plan.spans), host.kv_range)


def test_an_append_past_the_capacity_is_dropped_and_reported(device):
    query, _, _, plan = step_of(device, capacity=303)
    new = normal(1, 3, 2, 4, 64), normal(2, 3, 2, 4, 64)
    before = [device.get(array) for array in (plan.mass, plan.weighted)]
    plan.append(*map(device.put, new))
    with pytest.raises(RuntimeError, match="exceeded the planned capacity"):
        plan.check()
    plan.check()
    # The first sequence has no room for four more and stays as it is to the last bit; the others took them.
    assert device.get(plan.spans).tolist() == [[0, 300], [37, 129], [5, 5]]
    for found, old in zip((plan.mass, plan.weighted), before, strict=True):
        np.testing.assert_array_equal(device.get(found)[0], old[0])
        assert (device.get(found)[1:] != old[1:]).any(axis=-1).all()
    plan.run(device.put(query))
    plan.check()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_query_that_is_not_finite_is_reported_once(device, bad):
    query, host, _, plan = step_of(device)
    wrong = query.copy()
    wrong[1, 3, 5] = bad
    plan.run(device.put(wrong))
    with pytest.raises(RuntimeError, match="an output is not finite: check the query, keys and values"):
        plan.check()
    plan.check()
    plan.run(device.put(query))
    plan.check()
    require_reference(device, plan, query, host)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", [0, 1])
def test_a_token_that_is_not_finite_is_reported_by_every_run(device, where, bad):
    query, _, _, plan = step_of(device)
    new = [normal(seed, 3, 2, 1, 64) for seed in (1, 2)]
    new[where][2, 1, 0, 7] = bad
    plan.append(*map(device.put, new))
    for _ in range(2):
        plan.run(device.put(query))
        with pytest.raises(RuntimeError, match="an output is not finite"):
            plan.check()


def test_an_output_that_its_dtype_cannot_hold_is_reported(device):
    query, keys, values = (
        normal(seed, *shape) for seed, shape in enumerate(((1, 4, 64), (1, 2, 9, 64), (1, 2, 9, 64)))
    )
    values[:, 1, :, 5] = 1e5
    cache = prepared(device, METHOD, keys, values)[1]
    wide, narrow = (cache.plan(4, out_dtype=dtype) for dtype in (np.float32, np.float16))
    for plan in (wide, narrow):
        plan.run(device.put(query))
    wide.check()
    with pytest.raises(RuntimeError, match=r"an output is not finite: .*or pass a wider out_dtype"):
        narrow.check()


def test_what_cannot_be_planned_is_refused(device):
    from socket_gpu.race.plan import RacePlan

    _, host, cache, _ = step_of(device)
    other = [device.put(normal(1, 1, 2, 9, 64))] * 2
    for method in (Dense(), Santa()):
        with pytest.raises(TypeError, match="has no GPU plan of RACE: pass a cache of Race"):
            RacePlan(method.prepare(*other, backend=device.engine), num_qo_heads=4)
    with pytest.raises(ValueError, match="the cache is on backend 'numpy'"):
        RacePlan(host, num_qo_heads=8)
    with pytest.raises(ValueError, match="the query has 5 heads and keys have 2"):
        cache.plan(5)
    with pytest.raises(TypeError, match="out_dtype has dtype int32: pass one of float16"):
        cache.plan(8, out_dtype=np.int32)
    with pytest.raises(TypeError, match="Race does not use sm_scale, which was given: drop it"):
        cache.plan(8, sm_scale=0.5)


class OwnRace(Race):
    """A method that may read in a way of its own."""


def test_a_class_of_your_own_is_not_planned_as_its_base(device):
    rows = [device.put(normal(1, 1, 2, 9, 64))] * 2
    cache = OwnRace(4, 4, 1.0).prepare(*rows, key=device.key, backend=device.engine)
    with pytest.raises(TypeError, match=r"^OwnRace\(.*\) has no GPU plan of RACE"):
        cache.plan(4)


def test_queries_and_tokens_of_another_kind_are_refused(device):
    query, _, _, plan = step_of(device)
    with pytest.raises(TypeError, match="query is of type ndarray: pass a CuPy array"):
        plan.run(query)
    with pytest.raises(TypeError, match="query has dtype float16: pass bfloat16"):
        plan.run(device.put(query.astype(np.float16)))
    for shape in ((3, 4, 64), (2, 8, 64), (3, 8, 32), (3, 8, 1, 64)):
        with pytest.raises(ValueError, match=r"query has shape .*: pass \(3, 8, 64\)"):
            plan.run(device.cupy.zeros(shape, bfloat16()))
    with pytest.raises(ValueError, match=r"query is not C-contiguous: pass cupy.ascontiguousarray\(query\)"):
        plan.run(device.cupy.zeros((3, 64, 8), bfloat16()).swapaxes(1, 2))
    token, narrow = device.cupy.zeros((3, 2, 1, 64), bfloat16()), device.cupy.zeros((3, 2, 1, 64), np.float16)
    wrong = [
        ((device.get(token), token), TypeError, "keys is of type ndarray: pass a CuPy array"),
        ((token, narrow), TypeError, "values has dtype float16: pass bfloat16"),
        ((narrow, token), TypeError, "keys has dtype float16: pass bfloat16"),
        ((token[:, :1], token), ValueError, "keys has shape"),
        ((token, token[..., :32].copy()), ValueError, r"values has shape \(3, 2, 1, 32\): pass \(3, 2, 1, 64\)"),
        ((token[:, :, :0], token[:, :, :0]), ValueError, "with at least one token"),
        ((BorrowedRows(token, token),), TypeError, "the cache reads no rows of another owner"),
    ]
    before = [device.get(array) for array in (plan.mass, plan.weighted, plan.spans)]
    for given, error, sentence in wrong:
        with pytest.raises(error, match=sentence):
            plan.append(*given)
    for array, old in zip((plan.mass, plan.weighted, plan.spans), before, strict=True):
        np.testing.assert_array_equal(device.get(array), old)


def test_values_of_another_length_and_dtype_than_keys_are_planned(device):
    query, keys = normal(1, 2, 6, 32, dtype="float16"), normal(2, 2, 2, 50, 32, dtype="float16")
    values = normal(3, 2, 2, 50, 20, dtype="float32")
    host, cache = prepared(device, METHOD, keys[:, :, :40], values[:, :, :40], capacity=50)
    plan = cache.plan(6, out_dtype=np.float32)
    plan.append(*(device.put(array[:, :, 40:].copy()) for array in (keys, values)))
    plan.run(device.put(query))
    require_reference(device, plan, query, host.append(keys[:, :, 40:], values[:, :, 40:]))


def test_tensors_go_in_and_come_out(device, require_extra):
    torch = require_extra("torch", "torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU.")
    query, keys, values = (
        torch.from_numpy(normal(seed, *shape, dtype="float32")).to("cuda", torch.bfloat16)
        for seed, shape in enumerate(((2, 8, 64), (2, 2, 50, 64), (2, 2, 50, 64)))
    )
    cache = METHOD.prepare(keys[:, :, :40], values[:, :, :40], key=device.key, capacity=50)
    plan = cache.plan(8)
    plan.append(*(array[:, :, 40:].contiguous() for array in (keys, values)))
    value, lse = plan.run(query)
    plan.check()
    eager = METHOD.attend(query, cache.append(keys[:, :, 40:], values[:, :, 40:]))
    assert value.dtype == torch.bfloat16
    assert_close(value.double().cpu().numpy(), eager.value.double().cpu().numpy(), "bfloat16")
    assert_close(lse.cpu().numpy(), eager.lse.cpu().numpy(), "float32")


@pytest.mark.slow
def test_a_step_takes_as_long_with_a_million_tokens_as_with_a_thousand(device):
    """Medians of 50 replays, each after the caches were flushed: they spread by some tenths of a microsecond."""
    if not hasattr(device.cupy.cuda, "Event"):
        pytest.skip("a CPU that stands in for a GPU has no events.")
    from socket_gpu.bench.clock import Clock, capture
    from socket_gpu.bench.inputs import normal_bfloat16

    clock, cupy, medians = Clock(), device.cupy, {}
    query, new = (device.put(normal(seed, 1, heads, *rest, 128)) for seed, (heads, *rest) in enumerate(((32,), (8, 1))))
    for tokens in (2**10, 2**20):
        rows = normal_bfloat16(cupy.random.RandomState(1), (1, 8, tokens, 128))
        first = rows[:, :, :1].copy()
        plan = METHOD.prepare(first, first, key=device.key, backend=device.engine, capacity=2**21).plan(32)
        plan.append(*[rows[:, :, 1:].copy()] * 2)
        plan.append(new, new)
        plan.run(query)
        plan.check()
        assert device.get(plan.spans).tolist() == [[0, tokens + 1]]
        np.testing.assert_allclose(device.get(plan.mass).sum(axis=-1), METHOD.num_tables * (tokens + 1), rtol=1e-12)
        calls = {"run": lambda plan=plan: plan.run(query), "append": lambda plan=plan: plan.append(new, new)}
        medians[tokens] = {name: clock.time(capture(call)).us for name, call in calls.items()}
    for name in ("run", "append"):
        assert medians[2**20][name] <= 1.2 * medians[2**10][name] + 1, medians


BYTES_NEEDED = 40 << 30


@pytest.mark.slow
def test_sums_beyond_2_to_the_32_elements_are_read_and_added_to(device):
    """Of 4100 sequences, at the first and the last."""
    from socket_gpu.race import step

    cupy, method, batch, length = device.cupy, Race(12, 1, 1.0), 4100, 256
    if not hasattr(cupy.cuda, "Event") or cupy.cuda.Device().mem_info[0] < BYTES_NEEDED:
        pytest.skip(f"a GPU with {BYTES_NEEDED >> 30} GiB of free memory is needed.")
    hashed, spans = step.Hash.of(method.draw(64, device.key).weights, 1.0), np.array([[0, 2]] * batch)
    mass, weighted = cupy.zeros((batch, 1, 4096)), cupy.zeros((batch, 1, 4096, length))
    assert weighted.size > 2**32
    query, keys, values = normal(1, batch, 1, 64), normal(2, batch, 1, 2, 64), normal(3, batch, 1, 2, length)
    status = cupy.zeros(1, np.uint32)
    step.add_tokens_into(mass, weighted, device.put(keys), device.put(values), hashed, device.put(spans), 5)
    value, lse = cupy.empty((batch, 1, length), np.float32), cupy.empty((batch, 1), np.float32)
    step.read_sums_into(value, lse, device.put(query), hashed, mass, weighted, status)
    for row in (0, 2049, batch - 1):
        one = slice(row, row + 1)
        exact = method.attend(query[one], method.prepare(keys[one], values[one], key=device.key), out_dtype=np.float64)
        assert_rounded(device.get(value[one]), exact.value)
        assert_rounded(device.get(lse[one]), exact.lse)
    assert int(status[0]) == 0
    del mass, weighted
    cupy.get_default_memory_pool().free_all_blocks()
