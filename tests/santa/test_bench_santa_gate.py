"""The gate of sampled values: the reference and float32 arithmetic pass, draws that are off by one token do not."""

from __future__ import annotations

import numpy as np
import pytest

from socket_gpu.bench.gate import GateError
from socket_gpu.santa.draw_gate import DrawLaw, require_draws, require_exact_scores, require_lse
from socket_theory import Key, Santa
from socket_theory.core.rng import uniform
from socket_theory.santa.tiles import flash_budgets, tiled_counts

KEY = Key.from_seed(8)
CASES = [
    (Santa(128), 128, 131072, 1.0),
    (Santa(1024), 128, 131072, 1.0),
    (Santa(128), 128, 131072, 6.0),
    (Santa(256), 128, 5000, 12.0),
    (Santa(128, "flash"), 256, 131072, 1.0),
    (Santa(300, "flash"), 256, 12_345, 4.0),
    (Santa(7), 128, 1, 1.0),
]


def name(case):
    method, _, length, spread = case
    return f"{method.sampler} S={method.num_samples} N={length} spread={spread:g}"


def draw_scores(length, spread):
    """Scores as a kernel keeps them: float32, in units of log 2."""
    return (spread / np.log(2) * KEY.fold_in("scores", length).generator().standard_normal(length)).astype(np.float32)


def draw_uniforms(method, tile_len, length):
    return uniform(KEY, np.arange(-(-length // tile_len) if method.sampler == "flash" else 1))


def law_of(method, tile_len, scores, uniforms):
    return DrawLaw.of(method, np.log(2) * scores.astype(np.float64), uniforms, tile_len)


def reference_draws(method, scores, uniforms):
    weights = np.exp2(scores.astype(np.float64) - scores.max())
    if method.sampler == "flash":
        budgets = flash_budgets(len(uniforms), method.num_samples)
        counts = tiled_counts(weights, method.tile_len, budgets, uniforms)
    else:
        counts = np.rint(method.num_samples * method.draws(weights, uniforms)).astype(int)
    return np.repeat(np.arange(len(scores)), counts)


def kernel_draws(method, tile_len, scores, uniforms):
    """The kernels' arithmetic: masses and running sums in float32, rescaled on the way, tiles in float64."""
    rows = np.full((-(-len(scores) // tile_len), tile_len), -np.inf, np.float32)
    rows.reshape(-1)[: len(scores)] = scores
    top, mass = np.full(len(rows), -np.inf, np.float32), np.zeros(len(rows), np.float32)
    with np.errstate(invalid="ignore"):
        for piece in np.split(rows, tile_len // 16, axis=1):
            above = np.maximum(top, piece.max(axis=1))
            mass = np.where(top == above, mass, mass * np.exp2(top - above)).astype(np.float32)
            for column in piece.T:
                mass += np.where(column == -np.inf, np.float32(0), np.exp2(column - above))
            top = above
    masses = np.exp2(top.astype(np.float64) - top.max()) * mass
    running = np.cumsum(np.exp2(rows - top[:, None]), axis=1, dtype=np.float32)
    if method.sampler == "flash":
        each = int(flash_budgets(len(rows), method.num_samples)[0])
        tiles = np.repeat(np.arange(len(rows)), each)
        inside = (np.tile(np.arange(each), len(rows)) + (1 - np.repeat(uniforms, each))) / each
    else:
        edges = np.concatenate([[0], np.cumsum(masses)]) * (method.num_samples / masses.sum())
        edges[-1] = method.num_samples
        goals = np.arange(method.num_samples) + (1 - uniforms)
        tiles = np.searchsorted(edges[1:], goals)
        inside = (goals - edges[tiles]) / (edges[tiles + 1] - edges[tiles])
    goal = np.minimum(inside, 1).astype(np.float32) * running[tiles, -1]
    smaller = (running[tiles] < goal[:, None]).sum(axis=1)
    return tiles * tile_len + np.minimum(smaller, np.minimum(tile_len, len(scores) - tiles * tile_len) - 1)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_the_reference_and_the_kernels_arithmetic_pass(case):
    method, tile_len, length, spread = case
    scores, uniforms = draw_scores(length, spread), draw_uniforms(method, tile_len, length)
    law = law_of(method, tile_len, scores, uniforms)
    reference, kernel = reference_draws(method, scores, uniforms), kernel_draws(method, tile_len, scores, uniforms)
    assert len(reference) == len(kernel) == len(law.goals)
    require_draws("a head", reference, law)
    require_draws("a head", kernel, law)


@pytest.mark.parametrize("case", CASES[:-1], ids=name)
def test_a_token_too_far_or_an_offset_of_another_step_does_not(case):
    method, tile_len, length, spread = case
    scores, uniforms = draw_scores(length, spread), draw_uniforms(method, tile_len, length)
    law, right = law_of(method, tile_len, scores, uniforms), reference_draws(method, scores, uniforms)
    for step in (-1, 1):
        with pytest.raises(GateError, match=r"\d+ of \d+ draws of a head are other tokens"):
            require_draws("a head", np.clip(right + step, 0, length - 1), law)
    with pytest.raises(GateError, match="other tokens"):
        require_draws("a head", reference_draws(method, scores, 1 - uniforms), law)


def test_phases_have_to_be_carried():
    """With a phase that starts anew in every tile, each tile draws as often as before, but elsewhere."""
    method, scores, uniforms = Santa(256), draw_scores(4096, 1.0), draw_uniforms(Santa(256), 128, 4096)
    law = law_of(method, 128, scores, uniforms)
    counts = np.bincount(reference_draws(method, scores, uniforms) // 128, minlength=32)
    anew = tiled_counts(np.exp2(scores.astype(np.float64)), 128, counts, np.broadcast_to(uniforms, 32))
    with pytest.raises(GateError, match="other tokens"):
        require_draws("a head", np.repeat(np.arange(4096), anew), law)


def test_draws_are_as_many_as_asked_for_and_tokens():
    method, scores, uniforms = Santa(9), draw_scores(300, 1.0), draw_uniforms(Santa(9), 128, 300)
    law, right = law_of(method, 128, scores, uniforms), reference_draws(method, scores, uniforms)
    require_draws("a head", np.append(right, [-1, -1]), law)
    for wrong in (right[:-1], np.append(right, 3), np.append(right[:-1], -1), np.append(right[:-1], 300)):
        with pytest.raises(GateError, match="draws, and 9 tokens are to be drawn"):
            require_draws("a head", wrong, law)


def test_a_draw_within_rounding_of_an_edge_may_be_its_neighbour():
    law = DrawLaw(np.array([1.0, 2.0, 3.0]), np.array([0.5, 2.0 + 1e-7, 2.5]), np.full(3, 1 / 3), 1e-6)
    for second in (1, 2):
        require_draws("a head", np.array([0, second, 2]), law)
    with pytest.raises(GateError, match="1 of 3 draws"):
        require_draws("a head", np.array([0, 0, 2]), law)


def test_weights_of_a_law_add_up_to_one_and_follow_the_masses():
    scores, method = draw_scores(1000, 3.0), Santa(8, "flash", 128)
    law = law_of(method, 128, scores, draw_uniforms(method, 128, 1000))
    weights = np.exp2(scores.astype(np.float64))
    np.testing.assert_allclose(law.weights, np.add.reduceat(weights, np.arange(0, 1000, 128)) / weights.sum())
    np.testing.assert_allclose(law_of(Santa(8), 128, scores, np.array([0.5])).weights.sum(), 1)


def test_scores_are_exact_up_to_rounding():
    draw = KEY.fold_in("rows").generator()
    query, keys = (draw.standard_normal(shape).astype(np.float16) for shape in (128, (4000, 128)))
    wide, scale = keys.astype(np.float64), 128**-0.5
    exact, sizes = scale * wide @ query, scale * 128 * np.abs(wide) @ np.abs(query)
    require_exact_scores(
        "a head", np.float32(scale) * (keys.astype(np.float32) @ query.astype(np.float32)), exact, sizes
    )
    for wrong in (exact.astype(np.float16), 1.001 * exact, np.where(np.arange(4000) == 7, np.nan, exact)):
        with pytest.raises(GateError, match="of 4000 scores of a head differ"):
            require_exact_scores("a head", wrong, exact, sizes)


def test_an_lse_is_within_a_ten_thousandth():
    require_lse("a head", 12.34565, 12.3456)
    for wrong in (12.3458, 12.3454, np.nan):
        with pytest.raises(GateError, match="the lse of a head"):
            require_lse("a head", wrong, 12.3456)
