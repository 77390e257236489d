"""SANTA's planned steps with their kernels on a CPU: exact scores, draws that follow from them, and their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from socket_gpu.core.rows import DeviceRows
from socket_gpu.santa import draw
from socket_gpu.santa.plan import SantaPlan
from socket_theory import BorrowedRows, Key, PagedRows, Santa
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


def strided(gpu: Any, keys: Any, values: Any) -> DeviceRows:
    """Views of arrays [B, N, Hkv, D]."""
    token_major = (gpu.cupy.asarray(np.ascontiguousarray(host(array).swapaxes(1, 2))) for array in (keys, values))
    return DeviceRows.of(BorrowedRows(*(array.swapaxes(1, 2) for array in token_major)))


def paged(gpu: Any, keys: Any, values: Any, page: int) -> DeviceRows:
    """Shuffled pages, NaN in those of no sequence and behind the last slot."""
    batch, heads, slots, dim = keys.shape
    blocks = -(-slots // page)
    table = np.random.default_rng(page).permutation(batch * blocks + 3)[: batch * blocks].reshape(batch, blocks)
    pages = np.full((2, batch * blocks + 3, heads, page, dim), np.nan, keys.dtype)
    for held, array in zip(pages, (keys, values), strict=True):
        padded = np.full((batch, heads, blocks * page, dim), np.nan, keys.dtype)
        padded[:, :, :slots] = host(array)
        held[table] = padded.reshape(batch, heads, blocks, page, dim).swapaxes(1, 2)
    return DeviceRows.of(PagedRows(*map(gpu.cupy.asarray, pages), table))


def step_over(gpu: Any, rows: DeviceRows, method: Santa, query: Any) -> dict[str, bytes]:
    """The bits of all that both kernels write, for the valid tokens of `SPANS`."""
    empty, (batch, heads, dim), spans = gpu.cupy.empty, query.shape, gpu.cupy.asarray(SPANS)
    shape = draw.TileShape.of(rows.shape, rows.keys.dtype, heads // rows.shape[1], method)
    tiles = -(-int(SPANS[:, 1].max()) // shape.tile_len)
    scores = empty((batch * heads, tiles * shape.tile_len), np.float32)
    states = empty((batch * heads, tiles, 2), np.float32)
    draw.score_tiles_into(scores, states, query, rows, spans, SM_SCALE, shape)
    value, lse = empty((batch, heads, dim), np.float32), empty((batch, heads), np.float32)
    draws, steps = empty((batch, heads, method.num_samples), np.int32), gpu.cupy.zeros(batch * heads, np.uint64)
    buffers, status = draw.DrawBuffers.empty(batch * heads, dim, method.num_samples), gpu.cupy.zeros(1, np.uint32)
    given = scores, states, rows, spans
    draw.draw_values_into((value, lse, draws), given, method, shape, (KEY, steps), buffers, status)
    assert int(status[0]) == 0
    written = {"scores": scores, "states": states, "draws": draws, "value": value, "lse": lse}
    return {name: array.tobytes() for name, array in written.items()}


@pytest.mark.parametrize("method", [Santa(256), Santa(40, "flash", 32)], ids=lambda method: method.sampler)
def test_views_and_pages_give_the_bits_of_contiguous_rows(gpu_on_cpu: Any, method: Santa) -> None:
    cache, query = prepare(gpu_on_cpu, method), 2 * normal(gpu_on_cpu, 4, 1, 2)[:, :, 0]
    keys, values = cache.keys, cache.values
    expected = step_over(gpu_on_cpu, DeviceRows.of(cache.rows), method, query)
    assert step_over(gpu_on_cpu, strided(gpu_on_cpu, keys, values), method, query) == expected
    for page in (1, 16, 7):
        assert step_over(gpu_on_cpu, paged(gpu_on_cpu, keys, values, page), method, query) == expected, page
