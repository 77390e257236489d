"""Santa as an estimator: what it draws with a key, what it reports, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from socket_theory import Budget, Dense, Key, Santa
from socket_theory.bounds.importance import SamplingSpread, plain_spread
from socket_theory.core.rng import uniform
from socket_theory.santa.law import systematic_covariance
from socket_theory.santa.samplers import systematic_counts

KEY = Key.from_seed(21)
KEYS, VALUES = KEY.generator().standard_normal((2, 2, 2, 50, 8))
QUERY = 2 * KEY.fold_in("query").generator().standard_normal((2, 4, 8))


def step(method: Santa, key: Key = KEY, keys=KEYS, values=VALUES, **options):
    return method.attend(QUERY, method.prepare(keys, values, **options), key=key)


def softmax(row: int, head: int) -> np.ndarray:
    logits = KEYS[row, head // 2] @ QUERY[row, head] / np.sqrt(8)
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


@pytest.mark.parametrize("tile_len", [1, 7, 50, 256])
def test_the_default_averages_systematic_counts_at_one_offset_a_head(tile_len):
    estimate = step(Santa(num_samples=12, tile_len=tile_len))
    for row, head in np.ndindex(2, 4):
        offset = uniform(KEY, (4 * row + head) << 32)
        counts = systematic_counts(softmax(row, head), 12, offset)
        np.testing.assert_allclose(estimate.value[row, head], counts @ VALUES[row, head // 2] / 12, rtol=1e-12)
        kept = estimate.indices[row, head]
        assert kept[kept >= 0].tolist() == np.flatnonzero(counts).tolist()
        assert estimate.stats.captured_mass[row, head] == pytest.approx(softmax(row, head)[counts > 0].sum(), rel=1e-6)


@pytest.mark.parametrize(
    "sampler", ["phase_carried", "systematic", "stratified", "iid", "flash", "floor_one", "biased_prop"]
)
def test_every_sampler_draws_by_the_uniforms_of_its_head(sampler):
    method = Santa(9, sampler, None if sampler in ("systematic", "stratified", "iid") else 15)
    drawn = step(method)
    for row, head in np.ndindex(2, 4):
        uniforms = uniform(KEY, (4 * row + head) << 32 | np.arange(method.num_uniforms(50)))
        rows = method.draws(softmax(row, head), uniforms)
        np.testing.assert_allclose(drawn.value[row, head], rows @ VALUES[row, head // 2], atol=1e-6)
        kept = drawn.indices[row, head]
        assert kept[kept >= 0].tolist() == np.flatnonzero(rows).tolist()


def test_scores_in_float32_move_the_mean_by_no_more_than_stated():
    """One row a tile is the whole law, read off without a draw."""
    query = 6 * QUERY
    method = Santa(3, "flash", tile_len=1)
    value = method.attend(query, method.prepare(KEYS, VALUES), key=KEY).value
    dense = Dense().attend(query, Dense().prepare(KEYS, VALUES)).value
    assert 0 < np.abs(value - dense).max() <= 2.0**-23 * np.log(50) * np.abs(VALUES).max()


def test_a_tile_has_an_offset_of_its_own_in_flash_only():
    whole = step(Santa(num_samples=50, sampler="flash", tile_len=10))
    for row, head in np.ndindex(2, 4):
        expected, law = np.zeros(8), softmax(row, head).reshape(5, 10)
        for tile in range(5):
            offset = uniform(KEY, (4 * row + head) << 32 | tile)
            counts = systematic_counts(law[tile], 10, offset)
            expected += law[tile].sum() * counts @ VALUES[row, head // 2, 10 * tile : 10 * tile + 10] / 10
        np.testing.assert_allclose(whole.value[row, head], expected, rtol=1e-6)
    carried = [step(Santa(num_samples=50, tile_len=length)).value for length in (10, 25)]
    np.testing.assert_allclose(*carried, rtol=1e-12)
    assert not np.allclose(whole.value, step(Santa(num_samples=50, sampler="flash", tile_len=25)).value)


@pytest.mark.parametrize("sampler", ["phase_carried", "flash"])
def test_steps_sequences_and_heads_draw_independently(sampler):
    """On equal heads and sequences every head still has its own draw, and every folded key another."""
    keys, values = (np.broadcast_to(a[:1, :1], a.shape) for a in (KEYS, VALUES))
    method = Santa(num_samples=3, sampler=sampler, tile_len=10)
    cache = method.prepare(keys, values)
    query = np.broadcast_to(QUERY[:1, :1], QUERY.shape)
    values = [method.attend(query, cache, key=KEY.fold_in("step", t)).value.reshape(8, 8) for t in range(30)]
    # Few distinct outcomes exist at S = 3; all heads or all steps alike would be one.
    assert min(len(np.unique(np.round(v, 9), axis=0)) for v in values) > 1
    assert len(np.unique(np.round([v[0] for v in values], 9), axis=0)) > 5
    again = method.attend(query, cache, key=KEY.fold_in("step", 0)).value.reshape(8, 8)
    np.testing.assert_array_equal(again, values[0])


@pytest.mark.statistical
def test_the_mean_over_steps_is_dense_attention_and_that_of_one_key_is_not():
    """Steps are independent, so Bernstein's radius holds for their mean: one false alarm in a million runs."""
    method, steps = Santa(num_samples=8), 400
    cache = method.prepare(KEYS, VALUES)
    dense = Dense().attend(QUERY, Dense().prepare(KEYS, VALUES)).value
    mean = sum(method.attend(QUERY, cache, key=KEY.fold_in("step", t)).value for t in range(steps)) / steps
    stuck = method.attend(QUERY, cache, key=KEY).value
    rejected = 0
    for row, head in np.ndindex(2, 4):
        law, rows = softmax(row, head), VALUES[row, head // 2]
        variance = float(np.trace(systematic_covariance(law, rows, 8)))
        radius = SamplingSpread(plain_spread(law, rows).radius, variance).bernstein(1e-6 / 8, steps)
        assert np.linalg.norm(mean[row, head] - dense[row, head]) <= radius
        rejected += np.linalg.norm(stuck[row, head] - dense[row, head]) > radius
    assert rejected >= 4


def test_every_key_and_the_union_of_drawn_values_are_counted():
    estimate = step(Santa(num_samples=9), kv_start=[0, 10], kv_len=[50, 30])
    for row, length in enumerate((50, 30)):
        union = sum(len(set(estimate.indices[row, 2 * g : 2 * g + 2].ravel()) - {-1}) for g in range(2))
        assert estimate.stats.bytes[row] == (2 * length + union) * 8 * 8
    assert (estimate.stats.kept <= 9).all()
    assert estimate.stats.nominal_bits == 0


def test_more_samples_than_tokens_may_draw_every_row_more_than_once():
    dense = Dense().attend(QUERY, Dense().prepare(KEYS, VALUES)).value
    errors = [np.abs(step(Santa(num_samples=s)).value - dense).max() for s in (10, 1000, 100_000)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]


def test_only_samplers_with_tiles_take_their_length():
    assert Santa() == Santa(128, "phase_carried", 256)
    assert Santa(sampler="iid").tile_len is None
    with pytest.raises(ValueError, match="tile_len=64 was given to sampler='iid', without tiles: drop it"):
        Santa(sampler="iid", tile_len=64)
    with pytest.raises(ValueError, match="tile_len=0 was given"):
        Santa(tile_len=0)
    with pytest.raises(ValueError, match="num_samples=0 was given"):
        Santa(num_samples=0)
    with pytest.raises(ValueError, match=r"sampler='prop' is unknown: pass one of phase_carried.*biased_prop"):
        Santa(sampler="prop")


def test_it_takes_a_key_and_no_budget():
    cache = Santa().prepare(KEYS, VALUES)
    with pytest.raises(TypeError, match=r"Santa draws at every step, key=None was given: pass Key\.from_seed"):
        Santa().attend(QUERY, cache)
    with pytest.raises(TypeError, match="Santa does not use budget"):
        Santa().attend(QUERY, cache, key=KEY, budget=Budget(tokens=4))
    with pytest.raises(TypeError, match="Santa does not use key"):
        Santa().prepare(KEYS, VALUES, key=KEY)
