"""Addresses beyond 2^32 elements: four million tokens of nine KV heads, checked at the heads that lie furthest."""

from types import SimpleNamespace

import numpy as np
import pytest

from socket_theory import Budget, Santa, Socket
from socket_theory.core.attention import softmax_attention
from socket_theory.core.checks import bfloat16
from socket_theory.core.hashing import hash_keys, round_to_bfloat16
from socket_theory.core.rng import uniform
from socket_theory.core.selection import select_tokens
from socket_theory.santa.tiles import tile_masses
from socket_theory.socket_lsh.operations import NumpyOperations
from socket_theory.testing import assert_close, relative_rms, rounding_margin

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
TOKENS, KV_HEADS, GROUP, DIM = 1 << 22, 9, 4, 128
START, APPENDED = 5, 3
BYTES_NEEDED = 50 << 30
METHOD, BUDGET = Socket.as_released(), Budget(tokens=12_000, sink=128, window=128)
SAMPLER = Santa(256, "flash", 1024)  # the phase-carried sampler takes 3.4 million tokens
# The KV heads whose rows begin at 2^31 elements and end beyond 2^32.
FAR_HEADS = (4, 8)


def normal_rows(cupy, heads):
    """Normal rows [1, heads, TOKENS, DIM] in bfloat16, drawn a head at a time."""
    state, bits = cupy.random.RandomState(47), cupy.empty((1, heads, TOKENS, DIM), np.uint16)
    for head in range(heads):
        row = state.standard_normal((TOKENS, DIM), dtype=np.float32).view(np.uint32)
        bits[0, head] = (row + np.uint32(0x8000) >> np.uint32(16)).astype(np.uint16)
    return bits.view(bfloat16())


@pytest.fixture(scope="module")
def step(device):
    """A run after an append at the end of a cache that it fills, and what the checks need of it on the host."""
    cupy = device.cupy
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    if cupy.cuda.Device().mem_info[0] < BYTES_NEEDED:
        pytest.skip(f"this device has less than {BYTES_NEEDED >> 30} GiB of free memory.")
    keys = normal_rows(cupy, KV_HEADS)
    planes = METHOD.draw(DIM, device.key)
    options = {"kv_start": START, "kv_len": TOKENS - START - APPENDED, "sample": planes, "backend": device.engine}
    cache = METHOD.prepare(keys, keys[:, ::-1], **options)
    del keys
    pool.free_all_blocks()
    draw = np.random.default_rng(0)
    query = (2 * draw.standard_normal((1, KV_HEADS * GROUP, DIM))).astype(bfloat16())
    tokens = draw.standard_normal((2, 1, KV_HEADS, APPENDED, DIM)).astype(bfloat16())
    plan = device.plan(cache, query, BUDGET)
    plan.append(*map(device.put, tokens))
    plan.run(device.put(query))
    plan.check()
    far = {}
    for head in FAR_HEADS:
        rows = slice(head * GROUP, (head + 1) * GROUP)
        arrays = cache.keys, cache.values, cache.index.arrays["value_norms"]
        results = plan.scores, plan.indices, plan.value, plan.lse
        far[head] = [device.get(a[0, head]) for a in arrays] + [device.get(a[0, rows]) for a in results]
    sampler = SAMPLER.prepare(cache.keys, cache.values, kv_start=START, kv_len=TOKENS - START)
    drawn = device.santa_plan(sampler, query)
    drawn.run(device.put(query))
    drawn.check()
    draws = {}
    for head in FAR_HEADS:
        rows = slice(head * GROUP, (head + 1) * GROUP)
        draws[head] = [
            device.get(a) for a in (drawn.scores[rows], *(a[0, rows] for a in (drawn.draws, drawn.value, drawn.lse)))
        ]
    codes = cache.index.arrays["codes"]
    yield SimpleNamespace(query=query, tokens=tokens, planes=planes, codes=codes, far=far, draws=draws)
    del cache, plan, sampler, drawn
    pool.free_all_blocks()


@pytest.mark.parametrize("head", FAR_HEADS)
def test_the_index_and_the_scores_far_out_are_the_references(device, step, head):
    from socket_gpu.socket_lsh.codes import CodeLayout

    keys, values, norms, scores, *_ = step.far[head]
    np.testing.assert_array_equal(keys[-APPENDED:], step.tokens[0, 0, head])
    np.testing.assert_array_equal(values[-APPENDED:], step.tokens[1, 0, head])
    blocks = np.array([0, 1, TOKENS // 64, TOKENS // 32 - 3, TOKENS // 32 - 2, TOKENS // 32 - 1])
    slots = (32 * blocks[:, None] + np.arange(32)).ravel()
    words = np.stack([device.get(step.codes[0, head, int(block)]) for block in blocks])
    used, slots = slots >= START, slots[slots >= START]
    codes = CodeLayout(METHOD.num_tables, METHOD.num_planes).unpack(words, 32 * len(blocks))[:, used]
    differ = codes ^ hash_keys(keys[slots], step.planes)
    bits = (differ[:, None] >> np.arange(METHOD.num_planes, dtype=np.uint16)[:, None] & 1).astype(bool)
    assert not (bits & rounding_margin(keys[slots], step.planes)).any()
    wide = values[slots].astype(np.float64)
    np.testing.assert_array_equal(norms[slots], round_to_bfloat16(np.sqrt((wide * wide).sum(-1))))
    expected = NumpyOperations().soft_scores(
        step.query[:, head * GROUP : (head + 1) * GROUP],
        codes[None, None],
        np.array([[0, len(slots)]]),
        step.planes,
        METHOD.query_map,
        METHOD.temperature,
    )
    found = scores[:, slots] / norms[slots]
    for row in range(GROUP):
        assert relative_rms(found[row] - expected[0, row].mean(), expected[0, row] - expected[0, row].mean()) <= 2e-2


@pytest.mark.parametrize("head", FAR_HEADS)
def test_the_selection_and_the_output_far_out_are_the_references(step, head):
    keys, values, _, scores, indices, value, lse = step.far[head]
    for row in range(GROUP):
        kept = select_tokens(scores[row, START:TOKENS], BUDGET) + np.int32(START)
        np.testing.assert_array_equal(indices[row], kept)
        assert kept[-1] == TOKENS - 1
        expected = softmax_attention(step.query[0, head * GROUP + row], keys[kept], values[kept])
        assert_close(value[row], expected.value, "bfloat16")
        assert_close(np.exp(lse[row] - expected.lse), 1.0, "bfloat16")


@pytest.mark.parametrize("head", FAR_HEADS)
def test_the_draws_far_out_are_the_references(device, step, head):
    (keys, values, *_), (scores, draws, value, lse) = step.far[head], step.draws[head]
    slots = np.concatenate([np.arange(START, 300), np.arange(TOKENS - 300, TOKENS)])
    for row in range(GROUP):
        query = step.query[0, head * GROUP + row].astype(np.float64)
        logits = keys[slots].astype(np.float64) @ query / np.sqrt(DIM) / np.log(2)
        np.testing.assert_allclose(scores[row, slots - START], logits, atol=1e-3)
        held = scores[row, : TOKENS - START].astype(np.float64)
        weights = np.exp2(held - held.max())
        assert lse[row] == pytest.approx(np.log(2) * held.max() + np.log(weights.sum()), abs=1e-4)
        masses, tiles = tile_masses(weights, SAMPLER.tile_len), np.arange(SAMPLER.num_uniforms(len(held)))
        expected = SAMPLER.draws(weights, uniform(device.key, (head * GROUP + row << 32) + tiles, 0))
        drawn = draws[row] - START
        np.testing.assert_array_equal(drawn // SAMPLER.tile_len, tiles)
        # Rounding may move a draw to the next token.
        assert np.isin(drawn, np.flatnonzero(expected)).mean() > 0.99
        assert relative_rms(value[row].astype(np.float64), masses @ values[draws[row]].astype(np.float64)) <= 5e-3
