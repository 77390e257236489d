"""The planned SANTA step: the eager one's draw first, then alive under graph replay and as its cache grows."""

from dataclasses import replace

import numpy as np
import pytest

from socket_theory import Santa
from socket_theory.core.checks import bfloat16
from socket_theory.testing import assert_close

pytestmark = pytest.mark.gpu
METHODS = [Santa(64), Santa(64, "flash", 32)]
SPANS = [(0, 300), (37, 125)]


def step_of(device, method, **options):
    """A query and a cache of two sequences with room to grow; the second is three tokens short of a tile's border."""
    shape = {"head_dim": 64, "num_qo_heads": 8, "num_kv_heads": 2, "slots": 300, "dtype": bfloat16()}
    problem = device.problem(method, spans=SPANS, **shape)
    return device.put(problem.query), device.prepare(method, problem, capacity=310, **options)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(bfloat16())


def outputs(device, plan):
    return [device.get(array) for array in (plan.draws, plan.value, plan.lse, plan.steps, plan.spans)]


def run_alone(device, plan, query, step):
    """The outputs of a plan of its own over the same tokens, run outside of any graph at this step."""
    rows = plan.cache.rows.bind(device.get(plan.spans), plan.cache.backend)
    alone = device.santa_plan(replace(plan.cache, rows=rows), query)
    alone.steps.fill(step)
    alone.run(query)
    alone.check()
    return outputs(device, alone)


@pytest.mark.parametrize("sm_scale", [None, 0.3])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_first_step_is_the_eager_one_on_either_backend(device, method, sm_scale):
    query, cache = step_of(device, method)
    plan = device.santa_plan(cache, query, sm_scale=sm_scale, out_dtype=np.float32)
    plan.run(query)
    plan.check()
    spans = {"kv_start": cache.kv_start, "kv_len": cache.kv_len}
    host = method.prepare(device.get(cache.keys), device.get(cache.values), **spans)
    for asked, held in ((query, cache), (device.get(query), host)):
        eager = method.attend(asked, held, key=device.key, sm_scale=sm_scale, out_dtype=np.float32)
        drawn, indices, value, expected = map(device.get, (plan.draws, eager.indices, plan.value, eager.value))
        rows = [
            (set(a.tolist()) - {-1}, set(b.tolist()) - {-1})
            for a, b in zip(merged(drawn), merged(indices), strict=True)
        ]
        same = np.array([left == right for left, right in rows])
        # Rounding may move a draw to the next token, once in some ten thousand draws at these lengths.
        assert sum(len(left ^ right) for left, right in rows) <= 0.01 * sum(len(right) for _, right in rows)
        assert_close(merged(value)[same], merged(expected)[same], "float32")
        np.testing.assert_allclose(device.get(plan.lse), device.get(eager.lse), atol=1e-4)


def merged(array):
    """[B, Hq, ...] -> [B * Hq, ...]."""
    return array.reshape(-1, *array.shape[2:])


def slots_of(indices):
    """The distinct slots of every head."""
    return [set(row.tolist()) - {-1} for row in merged(indices)]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_every_replay_draws_anew(device, method):
    query, cache = step_of(device, method)
    plan = device.santa_plan(cache, query)
    plan.run(query)
    replay, seen = device.captured(lambda: plan.run(query)), [outputs(device, plan)[0]]
    for step in range(1, 5):
        replay()
        plan.check()
        found, expected = outputs(device, plan), run_alone(device, plan, query, step)
        for left, right in zip(found, expected, strict=True):
            np.testing.assert_array_equal(left, right)
        # Two offsets of a head may be too near to tell apart by its draws, but not for half of the heads.
        assert all((found[0] != other).any(axis=-1).mean() > 0.5 for other in seen)
        seen.append(found[0])


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_replayed_graph_follows_its_query_and_its_tokens_across_a_tile_border(device, method):
    query, cache = step_of(device, method)
    plan = device.santa_plan(cache, query)
    keys, values = (device.put(normal(seed, 2, 2, 1, 64)) for seed in (1, 2))

    def append_and_run():
        plan.append(keys, values)
        plan.run(query)

    append_and_run()
    replay = device.captured(append_and_run)
    for step in range(1, 7):
        asked, row = normal(10 + step, *query.shape), normal(20 + step, *values.shape)
        # The new key of a KV head is a multiple of its first query, which therefore draws the new token.
        pointed = (4 * asked[:, :: plan.group, None].astype(np.float64)).astype(bfloat16())
        for array, new in ((query, asked), (keys, pointed), (values, row)):
            array[...] = device.put(new)
        replay()
        plan.check()
        np.testing.assert_array_equal(device.get(plan.spans), np.add(SPANS, (0, step + 1)))
        for sequence, slot in enumerate(np.sum(SPANS, axis=1) + step):
            for held, new in ((cache.keys, pointed), (cache.values, row)):
                np.testing.assert_array_equal(device.get(held)[sequence, :, slot], new[sequence, :, 0])
            assert (device.get(plan.draws)[sequence, :: plan.group] == slot).any(axis=-1).all()
        for left, right in zip(outputs(device, plan), run_alone(device, plan, query, step), strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_an_append_past_the_capacity_is_dropped_and_reported(device, method):
    query, cache = step_of(device, method)
    plan = device.santa_plan(cache, query)
    first, second = normal(1, 2, 2, 2, 6, 64), normal(2, 2, 2, 2, 6, 64)
    plan.append(*map(device.put, first))
    plan.check()
    plan.append(*map(device.put, second))
    with pytest.raises(RuntimeError, match="exceeded the planned capacity"):
        plan.check()
    plan.check()
    # The first sequence has no room for six more and stays as it is; the second took them.
    assert device.get(plan.spans).tolist() == [[0, 306], [37, 137]]
    for array, old, new in zip((cache.keys, cache.values), first, second, strict=True):
        held = device.get(array)
        np.testing.assert_array_equal(held[0, :, 300:306], old[0])
        np.testing.assert_array_equal(held[1, :, 162:174], np.concatenate([old[1], new[1]], axis=1))
    plan.run(query)
    plan.check()
    for left, right in zip(outputs(device, plan), run_alone(device, plan, query, 0), strict=True):
        np.testing.assert_array_equal(left, right)
