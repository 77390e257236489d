"""The planned SANTA step draws what the reference draws with the same uniforms, and averages those rows' values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from socket_theory import Santa
from socket_theory.core.checks import bfloat16
from socket_theory.core.rng import uniform
from socket_theory.santa.tiles import flash_budgets
from socket_theory.testing import assert_close

pytestmark = pytest.mark.gpu

# Every row compiles two kernels, so these are few, and what a launch may vary freely is drawn by Hypothesis.
# Sampler, tile_len, head_dim, dtype, query heads a KV head.
KERNELS = [
    ("phase_carried", None, 128, "bfloat16", 4),
    ("phase_carried", 48, 64, "float16", 8),
    ("phase_carried", None, 64, "bfloat16", 1),
    ("phase_carried", None, 128, "float16", 5),
    ("flash", 64, 128, "bfloat16", 4),
    ("flash", 32, 64, "float16", 3),
    ("flash", 256, 128, "float16", 2),
    ("flash", 96, 64, "bfloat16", 6),
    ("flash", 1024, 64, "bfloat16", 7),
]
# A share of the profile's examples for every row.
EXAMPLES = max(5, settings.default.max_examples // 4)
# A tile with less than this share of the mass may be lost in the sum of the others: then it draws nothing.
LOST = 1e-13


@st.composite
def shapes(draw):
    lengths = st.sampled_from([1, 2, 127, 128, 129, 255, 256, 257]) | st.integers(1, 700)
    spans = draw(st.lists(st.tuples(st.integers(0, 60), lengths), min_size=1, max_size=3))
    return {
        "spans": spans,
        "slots": max(map(sum, spans)) + draw(st.integers(0, 30)),
        "num_kv_heads": draw(st.integers(1, 2)),
        "seed": draw(st.integers(0, 2**32)),
        "spare": draw(st.integers(0, 300)),
        "samples": draw(st.just(1) | st.integers(2, 40) | st.integers(41, 900)),
        # 0: all keys tie. 60: scores of deviation 120, so that about one token has all the mass.
        "scale": draw(st.sampled_from([0, 1, 8, 60])),
    }


ONE_TOKEN = {"spans": [(3, 1)], "slots": 4, "num_kv_heads": 1, "seed": 0, "spare": 0, "samples": 1, "scale": 1}


@pytest.mark.parametrize("kernels", KERNELS, ids=str)
@settings(max_examples=EXAMPLES)
@given(shape=shapes())
@example(shape=ONE_TOKEN)
@example(shape=ONE_TOKEN | {"spans": [(7, 5), (0, 257)], "slots": 300, "samples": 700, "scale": 60})
def test_every_stage_is_the_references(device, kernels, shape):
    sampler, tile_len, head_dim, dtype, group = kernels
    shape = dict(shape)
    method, spare, scale = Santa(shape.pop("samples"), sampler, tile_len), shape.pop("spare"), shape.pop("scale")
    element, heads = bfloat16() if dtype == "bfloat16" else np.dtype(dtype), shape["num_kv_heads"] * group
    problem = device.problem(method, head_dim=head_dim, num_qo_heads=heads, dtype=element, **shape)
    cache = device.prepare(method, problem, capacity=shape["slots"] + spare)
    query = device.put((scale * problem.query.astype(np.float64)).astype(element))
    plan = device.santa_plan(cache, query)
    for step in range(2):
        plan.run(query)
        same_step(device, plan, query, step)
    assert (device.get(plan.steps) == 2).all()


@pytest.mark.parametrize("kernels", [KERNELS[0], KERNELS[4]], ids=str)
def test_all_but_a_few_draws_are_the_references_bit_for_bit(device, kernels):
    sampler, tile_len, head_dim, _, group = kernels
    method, rows = Santa(256, sampler, tile_len), [1, 0, 2, 1]
    sizes = {"num_qo_heads": 2 * group, "num_kv_heads": 2, "slots": 2300, "dtype": bfloat16()}
    problem = device.problem(method, head_dim=head_dim, spans=[(0, 2300), (41, 1027), (5, 1)], **sizes)
    cache, query = device.prepare(method, problem), device.put(problem.query[rows])
    plan = device.santa_plan(cache.take(rows).truncate([1000, 2300, 1, 7]), query)
    plan.steps.fill(2**33 + 1)
    plan.run(query)
    assert same_step(device, plan, query, 2**33 + 1).mean() <= 0.01
    # The same comparison notices the offset of another step, and of another row.
    for other in ({"step": 2**33}, {"step": 2**33 + 1, "first_row": 1}):
        with pytest.raises(AssertionError, match="another token"):
            same_step(device, plan, query, **other)


@pytest.mark.parametrize(("sampler", "tile_len"), [("phase_carried", None), ("flash", 32)])
def test_more_tiles_than_a_block_has_threads_are_all_drawn_from(device, sampler, tile_len):
    """704 and 701 tiles for 512 threads: every thread adds up two, and the last ones fewer or none."""
    method, length = Santa(900, sampler, tile_len), 22_401 if sampler == "flash" else 90_001
    sizes = {"num_qo_heads": 2, "num_kv_heads": 1, "slots": length + 5, "dtype": bfloat16()}
    problem = device.problem(method, head_dim=64, spans=[(3, length), (0, 513 * (tile_len or 128))], **sizes)
    plan, query = device.santa_plan(device.prepare(method, problem), problem.query), device.put(problem.query)
    plan.run(query)
    same_step(device, plan, query, 0)


def same_step(device, plan, query, step, first_row=0):
    """Every stage of the plan's last run, its `step`, against float64 on what the stage before gave.

    Returns the share of each head's row weights that rounding moved to another row than the reference's.
    """
    plan.check()
    method, tile, spans = plan.method, plan.shape.tile_len, device.get(plan.spans)
    given, states, draws, lse = (device.get(a) for a in (plan.scores, plan.states, plan.draws, plan.lse))
    asked, keys, values = (device.get(a).astype(np.float64) for a in (query, plan.cache.keys, plan.cache.values))
    means, moved = np.empty(asked.shape), np.empty(lse.shape)
    for sequence, head in np.ndindex(*lse.shape):
        start, length = spans[sequence]
        valid, row = slice(start, start + length), sequence * lse.shape[1] + head
        seen, drawn_from = (rows[sequence, head // plan.group, valid] for rows in (keys, values))
        exact = plan.sm_scale * seen @ asked[sequence, head]
        scores = given[row, :length].astype(np.float64)
        scores_are(exact, scores, plan.sm_scale * np.abs(seen) @ np.abs(asked[sequence, head]), seen.shape[1])
        states_are(states[row], scores, tile)
        np.testing.assert_allclose(lse[sequence, head], np.logaddexp.reduce(exact), rtol=1e-5, atol=1e-4)

        weights = np.exp2(scores - scores.max())
        tiles = np.arange(method.num_uniforms(length))
        offsets = uniform(plan.key, (row + first_row) << 32 | tiles, step=step)
        shares = drawn_shares(method, tile, weights, offsets, draws[sequence, head] - start)
        moved[sequence, head] = np.abs(shares - method.draws(weights, offsets)).sum() / 2
        means[sequence, head] = shares @ drawn_from
    assert_close(device.get(plan.value), means, plan.value.dtype)
    return moved


def scores_are(exact, scores, magnitudes, head_dim):
    """Float32 sums of D exact products, which tensor cores may truncate: D 2^-22 of the sum of |q_i k_i| is ample."""
    assert (np.abs(scores * np.log(2) - exact) <= head_dim * 2.0**-22 * magnitudes).all()
    assert np.sqrt(np.mean((scores * np.log(2) - exact) ** 2)) <= 1e-6 * max(1e-30, magnitudes.max())


def states_are(states, scores, tile):
    """The largest score of every tile exactly, and its mass within the rounding of its sum."""
    starts = np.arange(0, len(scores), tile)
    tops = np.maximum.reduceat(scores, starts)
    masses = np.add.reduceat(np.exp2(scores - np.repeat(tops, tile)[: len(scores)]), starts)
    np.testing.assert_array_equal(states[: len(tops), 0], tops)
    np.testing.assert_allclose(states[: len(tops), 1], masses, rtol=rounding(tile))


def rounding(tile):
    """What float32 may do to a tile's mass, and to a distribution function in it, relative to the mass.

    In units of 2^-24: a lane adds TILE/8 weights and rescales at most TILE/16 times, each an exp2 of 2 ulp and three
    roundings, so TILE/2 and less than 32 for the lanes' tree. A draw adds TILE/32 weights a lane, scans 32 lanes, and
    rounds its goal: less than 32. Rounded exponents cost less than the log of TILE on average, which leaves the rest.
    """
    return (tile / 2 + 96) * 2.0**-24


def drawn_shares(method, tile, weights, offsets, drawn):
    """What each row is multiplied by, [N], after checking every draw against its goal.

    Draw i of k is the first token with k F_j >= i + 1 - a, where F may be off by `rounding`: of the whole head with
    k = S, and for flash of each tile.
    """
    flash, length = method.sampler == "flash", len(weights)
    each = int(flash_budgets(len(offsets), method.num_samples)[0]) if flash else method.num_samples
    shares, size = np.zeros(length), tile if flash else length
    assert (drawn[each * len(offsets) :] < 0).all()
    for piece, offset in enumerate(offsets):
        tokens = weights[piece * size : (piece + 1) * size]
        here = drawn[piece * each : (piece + 1) * each] - piece * size
        share = tokens.sum() / weights.sum()
        if share < LOST and (here < 0).all():
            continue
        assert (np.diff(here) >= 0).all()
        total, goals = np.cumsum(tokens), (np.arange(1, each + 1) - offset) / each
        error = rounding(tile)
        first, last = np.searchsorted(total / total[-1], [goals - error, goals + error])
        assert ((here >= first) & (here <= np.minimum(last, len(tokens) - 1))).all(), "another token was drawn"
        np.add.at(shares, piece * size + here, share / each)
    return shares
