"""The law of sampled values on the GPU: unbiased over replays with exact variances, and prop's bias as predicted.

Every radius is Bernstein's for the exact variance, at a level that leaves the whole file one false alarm in a million.
"""

import numpy as np
import pytest

from socket_theory import Santa
from socket_theory.bounds.importance import SamplingSpread, plain_spread
from socket_theory.core.checks import bfloat16
from socket_theory.core.claim import TOTAL_FALSE_ALARM
from socket_theory.santa.bounds import flash_spread, prop_spread
from socket_theory.santa.law import prop_bias, systematic_covariance

pytestmark = [pytest.mark.gpu, pytest.mark.statistical]
STEPS, HEADS, GROUP, START, LENGTH = 4096, 8, 4, 5, 300
PLANNED = [Santa(32), Santa(64, "flash", 32)]
LEVEL = TOTAL_FALSE_ALARM / (len(PLANNED) * HEADS + 1)


def spread_of(method, weights, values):
    """The spread of one step's output about its mean."""
    if method.sampler == "flash":
        return flash_spread(weights, values, method.num_samples, method.tile_len)
    variance = float(np.trace(systematic_covariance(weights, values, method.num_samples)))
    return SamplingSpread(plain_spread(weights, values).radius, variance)


def softmax(query, keys):
    scores = keys @ query / np.sqrt(len(query))
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def mean_of_replays(device, plan, *launches):
    """The mean output of STEPS replays of one graph, added up on the device in float64."""
    total = device.cupy.zeros(plan.value.shape)

    def step():
        for launch in launches:
            launch()
        device.cupy.add(total, plan.value, out=total)

    step()
    total.fill(0)
    replay = device.captured(step)
    for _ in range(STEPS):
        replay()
    plan.check()
    return device.get(total)[0] / STEPS


@pytest.mark.parametrize("method", PLANNED, ids=str)
def test_the_mean_of_replays_is_dense_attention_and_that_of_a_stuck_counter_is_not(device, method):
    shape = {"head_dim": 64, "num_qo_heads": HEADS, "num_kv_heads": HEADS // GROUP, "slots": 320, "dtype": bfloat16()}
    problem = device.problem(method, spans=[(START, LENGTH)], **shape)
    cache, query = device.prepare(method, problem), device.put(problem.query)
    plan = device.santa_plan(cache, query, out_dtype=np.float32)
    fresh = mean_of_replays(device, plan, lambda: plan.run(query))
    # As in the released kernels, whose seed is a constant.
    stuck = mean_of_replays(device, plan, lambda: plan.steps.fill(0), lambda: plan.run(query))
    for head in range(HEADS):
        asked = problem.query[0, head].astype(np.float64)
        keys, values = (
            rows[0, head // GROUP, START : START + LENGTH].astype(np.float64) for rows in (problem.keys, problem.values)
        )
        law = softmax(asked, keys)
        radius = spread_of(method, law, values).bernstein(LEVEL, STEPS)
        assert np.linalg.norm(fresh[head] - law @ values) <= radius
        assert np.linalg.norm(stuck[head] - law @ values) > radius


def test_the_bias_of_prop_is_the_predicted_one_and_not_zero(device):
    """Copies of one sequence with values that differ between tiles: each head of each copy draws by itself."""
    method, copies, heads, tiles = Santa(16, "biased_prop", 16), 200, 8, 16
    draw = device.key.fold_in("prop").generator()
    query, keys = 2 * draw.standard_normal(32), draw.standard_normal((16 * tiles, 32))
    values = np.repeat(draw.standard_normal((tiles, 32)), 16, axis=0) + 0.2 * draw.standard_normal(keys.shape)
    query, keys, values = (array.astype(np.float32) for array in (query, keys, values))
    rows = (device.put(np.ascontiguousarray(np.broadcast_to(a, (copies, 1, *a.shape)))) for a in (keys, values))
    cache = method.prepare(*rows, backend=device.engine)
    asked = device.put(np.ascontiguousarray(np.broadcast_to(query, (copies, heads, 32))))
    found = device.get(method.attend(asked, cache, key=device.key).value).astype(np.float64).mean(axis=(0, 1))

    law, values = softmax(query.astype(np.float64), keys.astype(np.float64)), values.astype(np.float64)
    bias = prop_bias(law, values, method.num_samples, method.tile_len)
    spread = prop_spread(law, values, method.num_samples, method.tile_len)
    radius = spread.bernstein(LEVEL, copies * heads)
    assert np.linalg.norm(found - law @ values - bias) <= radius
    assert np.linalg.norm(found - law @ values) > radius
    assert np.linalg.norm(bias) > 3 * radius
