"""SANTA's planned steps with their kernels on a CPU: exact scores, draws that follow from them, and their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from socket_gpu.santa.plan import SantaPlan
from socket_theory import Key, Santa
from socket_theory.core.checks import bfloat16
from socket_theory.testing import relative_rms

KEY, SM_SCALE = Key.from_seed(31), 0.2
SPANS = np.array([[9, 139], [3, 80]])


def host(array: Any) -> Any:
    return np.asarray(array).copy()


def normal(gpu: Any, heads: int, slots: int, seed: int) -> Any:
    """Standard normals [2, heads, slots, 64] in bfloat16."""
    drawn = np.random.default_rng(seed).standard_normal((2, heads, slots, 64))
    return gpu.cupy.asarray(drawn.astype(bfloat16()))


def prepare(gpu: Any, method: Santa) -> Any:
    """Two ragged sequences, NaN outside them, two KV heads, and room for seven more tokens behind the longer one."""
    keys, values = (normal(gpu, 2, 150, seed) for seed in (0, 1))
    for row, (start, length) in enumerate(SPANS):
        for array in (keys, values):
            array[row, :, :start] = array[row, :, start + length :] = np.nan
    return method.prepare(keys, values, backend=gpu, kv_start=SPANS[:, 0], kv_len=SPANS[:, 1], capacity=157)


@pytest.mark.parametrize("sampler", ["phase_carried", "flash"])
def test_sampled_steps_count_and_draw_from_exact_scores(gpu_on_cpu: Any, sampler: Any) -> None:
    method = Santa(9, sampler, 32 if sampler == "flash" else 256)
    cache, query, seen = prepare(gpu_on_cpu, method), 2 * normal(gpu_on_cpu, 4, 1, 2)[:, :, 0], []
    plan = SantaPlan(cache, num_qo_heads=4, key=KEY, sm_scale=SM_SCALE, out_dtype=np.float32)
    for step in range(3):
        plan.run(query)
        plan.check()
        assert (host(plan.steps) == step + 1).all()
        spans, scores = host(plan.spans), host(plan.scores)
        for row in range(8):
            sequence, head = divmod(row, 4)
            start, length = spans[sequence]
            keys, values = (host(a)[sequence, head // 2].astype(np.float64) for a in (cache.keys, cache.values))
            own = keys[start : start + length] @ host(query)[sequence, head].astype(np.float64) * SM_SCALE
            np.testing.assert_allclose(np.log(2) * scores[row, :length], own, atol=1e-5)
            draws = host(plan.draws)[sequence, head]
            assert ((draws[draws >= 0] >= start) & (draws[draws >= 0] < start + length)).all()
            np.testing.assert_allclose(host(plan.lse)[sequence, head], np.logaddexp.reduce(own), atol=1e-5)
            if sampler == "phase_carried":
                assert relative_rms(host(plan.value)[sequence, head], values[draws].mean(axis=0)) <= 1e-6
        seen.append(host(plan.draws))
        plan.append(*(normal(gpu_on_cpu, 2, 1, 10 * step + seed) for seed in (3, 4)))
    first = SantaPlan(prepare(gpu_on_cpu, method), num_qo_heads=4, key=KEY, sm_scale=SM_SCALE)
    first.run(query)
    np.testing.assert_array_equal(host(first.draws), seen[0])
    eager = method.attend(query, first.cache, key=KEY, sm_scale=SM_SCALE)
    drawn = [set(row.tolist()) - {-1} for row in seen[0].reshape(8, -1)]
    assert drawn == [set(row.tolist()) - {-1} for row in host(eager.indices).reshape(8, -1)]
    assert len({draws.tobytes() for draws in seen}) == 3
