"""What a planned SANTA step does not compute it refuses or reports with a sentence."""

import numpy as np
import pytest

from socket_theory import BernoulliSanta, Dense, Santa, Socket
from socket_theory.core.checks import bfloat16

pytestmark = pytest.mark.gpu
METHODS = [Santa(40), Santa(40, "flash", 32)]
BFLOAT16 = bfloat16()


def prepared(device, method=METHODS[0], head_dim=64, dtype=BFLOAT16, group=4):
    """A query and a cache of 2 KV heads on the device."""
    shape = {"head_dim": head_dim, "num_qo_heads": 2 * group, "num_kv_heads": 2, "slots": 200, "dtype": dtype}
    problem = device.problem(method, spans=[(0, 200), (3, 90)], **shape)
    return device.put(problem.query), device.prepare(method, problem)


@pytest.mark.parametrize(
    "method",
    [
        Dense(),
        Socket(),
        BernoulliSanta(8),
        *(Santa(8, name) for name in ("systematic", "stratified", "iid", "floor_one", "biased_prop")),
    ],
    ids=str,
)
def test_a_method_without_kernels_is_refused(device, method):
    query, cache = prepared(device, method)
    with pytest.raises(TypeError, match="has no GPU plan: pass a cache of Santa with sampler=phase_carried or flash"):
        device.santa_plan(cache, query)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"dtype": np.float32}, TypeError, "keys have dtype float32: pass float16 or bfloat16"),
        ({"dtype": np.float64}, TypeError, "keys have dtype float64: pass float16 or bfloat16"),
        ({"head_dim": 32}, ValueError, "head_dim=32 was given: pass 64 or 128"),
        ({"head_dim": 256}, ValueError, "head_dim=256 was given: pass 64 or 128"),
        ({"group": 9}, ValueError, "9 query heads a KV head were given: pass at most 8"),
        ({"method": Santa(8, "flash", 48)}, ValueError, "tile_len=48 was given: pass a multiple of 32, at most 1024"),
        ({"method": Santa(8, "flash", 2048)}, ValueError, "tile_len=2048 was given: pass a multiple of 32"),
    ],
    ids=str,
)
def test_a_shape_without_kernels_is_refused(device, options, error, sentence):
    query, cache = prepared(device, **options)
    with pytest.raises(error, match=sentence):
        device.santa_plan(cache, query)


def test_the_carried_phase_takes_any_tile_len(device):
    """Its draws do not depend on tiles: the kernel has a length of its own."""
    found = []
    for tile_len in (None, 48, 5000):
        query, cache = prepared(device, Santa(40, tile_len=tile_len))
        plan = device.santa_plan(cache, query)
        plan.run(query)
        plan.check()
        found.append(device.get(plan.draws))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_more_tiles_than_a_block_can_scan_are_refused(device):
    rows = device.cupy.zeros((1, 1, 1_000_000, 64), np.float16)
    cache = Santa(40, "flash", 32).prepare(rows, rows, kv_len=[5], backend=device.engine)
    with pytest.raises(ValueError, match=r"1000000 slots were given in tiles of 32: pass at most \d+\."):
        device.santa_plan(cache, rows[:, :, 0])


def test_a_plan_needs_a_key_a_gpu_cache_a_head_ratio_and_a_scale(device):
    query, cache = prepared(device)
    with pytest.raises(TypeError, match=r"Santa draws at every step, key=None was given: pass Key\.from_seed"):
        device.santa_plan(cache, query, key=None)
    with pytest.raises(TypeError, match="key=7 was given"):
        device.santa_plan(cache, query, key=7)
    host = METHODS[0].prepare(device.get(cache.keys), device.get(cache.values), kv_start=cache.kv_start, kv_len=1)
    with pytest.raises(ValueError, match="the cache is on backend 'numpy'"):
        device.santa_plan(host, query)
    with pytest.raises(ValueError, match="pass a positive multiple of 2 query heads"):
        device.santa_plan(cache, query[:, :5])
    with pytest.raises(ValueError, match="sm_scale"):
        device.santa_plan(cache, query, sm_scale=-1.0)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_an_output_that_its_dtype_cannot_hold_is_reported(device, method):
    query, cache = prepared(device, method)
    cache.values[0, 1, :, 5] = device.put(np.array(1e6, BFLOAT16))
    plan, wide = (device.santa_plan(cache, query, out_dtype=dtype) for dtype in (np.float16, np.float32))
    wide.run(query)
    wide.check()
    plan.run(query)
    with pytest.raises(RuntimeError, match=r"an output is not finite: .*or pass a wider out_dtype"):
        plan.check()


def test_a_query_of_another_kind_is_refused_and_not_counted(device):
    query, cache = prepared(device)
    plan = device.santa_plan(cache, query)
    with pytest.raises(TypeError, match="query is of type ndarray: pass a CuPy array"):
        plan.run(device.get(query))
    with pytest.raises(TypeError, match="query has dtype float16: pass bfloat16"):
        plan.run(device.cupy.zeros(query.shape, np.float16))
    for shape in ((2, 4, 64), (1, 8, 64), (2, 8, 32), (2, 8, 1, 64)):
        with pytest.raises(ValueError, match=r"query has shape .*: pass \(2, 8, 64\)"):
            plan.run(device.cupy.zeros(shape, BFLOAT16))
    with pytest.raises(ValueError, match=r"query is not C-contiguous: pass cupy.ascontiguousarray\(query\)"):
        plan.run(device.cupy.zeros((2, 64, 8), BFLOAT16).swapaxes(1, 2))
    token = device.cupy.zeros((2, 2, 1, 64), BFLOAT16)
    with pytest.raises(TypeError, match="values has dtype float16: pass bfloat16"):
        plan.append(token, device.cupy.zeros(token.shape, np.float16))
    assert not device.get(plan.steps).any()
    assert device.get(plan.spans).tolist() == plan.cache.kv_range.tolist()


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["query", "keys", "values"])
def test_a_run_that_is_not_finite_is_reported_once(device, method, where, bad):
    query, cache = prepared(device, method)
    plan, clean = (device.santa_plan(cache, query) for _ in range(2))
    # A key of one token is enough; of values all, as any may be drawn.
    target = {"query": query[0, 3], "keys": cache.keys[0, 1, 7], "values": cache.values[0, 1, :, 5]}[where]
    before = target.copy()
    target[...] = device.put(np.full(target.shape, bad, BFLOAT16))
    plan.run(query)
    with pytest.raises(RuntimeError, match="an output is not finite: check the query, keys and values"):
        plan.check()
    plan.check()
    drawn = device.get(plan.draws)
    assert ((drawn >= -1) & (drawn < 200)).all()
    # It leaves nothing behind: the next step is that of a plan that never saw it.
    target[...] = before
    clean.steps.fill(1)
    for one in (plan, clean):
        one.run(query)
        one.check()
    for name in ("draws", "value", "lse", "steps"):
        np.testing.assert_array_equal(device.get(getattr(plan, name)), device.get(getattr(clean, name)))
