"""The ends of the number line: right, or refused with a sentence, never a law or a set of something else."""

import numpy as np
import pytest

from socket_theory import Budget, Key, Socket, SocketSampling
from socket_theory.core.draws import draw_tokens, sample_mean, sample_mean_value_aware
from socket_theory.santa.query import firing_probabilities, query_variance, sampled_query, shared_query_variance
from socket_theory.santa.samplers import iid_counts, probabilities, require_law, stratified_counts, systematic_counts
from socket_theory.santa.tiles import tile_masses, tiled_counts
from socket_theory.socket_lsh.operations import NumpyOperations

KEY = Key.from_seed(8)
QUERY = KEY.generator().standard_normal((1, 4, 8))
KEYS, VALUES = KEY.generator().standard_normal((2, 1, 2, 50, 8))
GRID = (np.arange(4000) + 0.5) / 4000
LEAST, MOST = 5e-324, np.finfo(np.float64).max


@pytest.mark.parametrize("unit", [LEAST, 2.0**-1022, 2.0**-600, 1.0, 2.0**600, MOST / 8])
def test_laws_of_the_smallest_and_the_largest_weights_are_drawn_as_others(unit):
    weights, ordinary = np.array([1.0, 0, 2, 1, 4]) * unit, np.array([1.0, 0, 2, 1, 4])
    for found, expected in (
        (iid_counts(weights, GRID), [500, 0, 1000, 500, 2000]),
        (stratified_counts(weights, GRID), [500, 0, 1000, 500, 2000]),
        (systematic_counts(weights, 16, np.array(0.3)), [2, 0, 4, 2, 8]),
        (systematic_counts(weights, 16, np.array(0.3), 2), [2, 0, 4, 2, 8]),
        (tiled_counts(weights, 4, np.array([4, 3]), np.array([0.3, 0.5])), [1, 0, 2, 1, 3]),
        (np.bincount(draw_tokens(weights, GRID), minlength=5), [500, 0, 1000, 500, 2000]),
    ):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(probabilities(weights), ordinary / 8)
    np.testing.assert_array_equal(tile_masses(weights, 2), [0.125, 0.375, 0.5])


def test_a_sum_that_only_just_is_finite_is_added_in_any_order():
    weights = np.full(1000, MOST / 1000)
    assert np.isfinite(weights.sum())
    counts = systematic_counts(weights, 1000, np.array(0.5), 7)
    assert counts.sum() == 1000
    assert counts.max() <= 2


def test_ordinary_laws_are_not_touched():
    weights = KEY.generator().random(30)
    np.testing.assert_array_equal(require_law(weights), weights)


@pytest.mark.parametrize(("unit", "length"), [(1e-300, 1e-32), (1.0, 1e-310), (1e-310, 1e-310), (1e300, 1e30)])
def test_sampled_means_are_right_at_any_scale(unit, length):
    weights, values = np.array([1.0, 2, 1, 4]) * unit, np.eye(4) * length
    norms = np.linalg.norm(np.eye(4), axis=1) * length
    for value in (
        sample_mean(weights, values, GRID)[0],
        sample_mean_value_aware(weights, norms, values, GRID)[0],
    ):
        np.testing.assert_allclose(value / length, [0.125, 0.25, 0.125, 0.5], rtol=1e-9)


def released(values, dtype, **settings):
    method = Socket(num_tables=20, value_weight=True, **settings)
    cache = method.prepare(KEYS.astype(dtype), values.astype(dtype), key=KEY)
    return method.attend(QUERY.astype(dtype), cache, budget=Budget(tokens=6)).indices


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("power", [-100, -80, -1, 0, 20, 100])
def test_the_scale_of_values_changes_no_set(dtype, power):
    np.testing.assert_array_equal(released(VALUES * 2.0**power, dtype), released(VALUES, dtype))


@pytest.mark.parametrize("group", ["query_head", "kv_head"])
def test_products_of_scores_and_norms_do_not_underflow(group):
    cold, scale = {"num_planes": 16, "query_map": "tanh", "temperature": 0.25}, 2.0**-100
    method = Socket(num_tables=20, value_weight=True, **cold)
    budget, kept = Budget(tokens=6, per=group), []
    for factor in (1.0, scale):
        cache = method.prepare(KEYS, VALUES * factor, key=KEY)
        kept.append(method.attend(QUERY, cache, budget=budget).indices)
    np.testing.assert_array_equal(*kept)
    weak = np.zeros((1, 4, 5), np.float32) + np.array([1, 2, 4, 3, 0], np.float32) * np.float32(1e-30)
    weighed = NumpyOperations().weigh_scores(weak, np.full((1, 2, 5), 1e-20, np.float32), shared=group == "kv_head")
    np.testing.assert_allclose(weighed / weighed.max(), weak / weak.max(), rtol=1e-6)
    assert weighed.max() >= 0.5


@pytest.mark.parametrize("scale", [1e-38, 1e-42])
@pytest.mark.parametrize("method", [Socket.as_released(), SocketSampling(value_aware=True)], ids=["socket", "sampling"])
def test_values_that_norms_do_not_tell_from_zero_are_refused(method, scale):
    sentence = "values have a vector that is not zero but shorter than 1e-32"
    tiny = (VALUES * scale).astype(np.float32)
    with pytest.raises(ValueError, match=sentence):
        method.prepare(KEYS.astype(np.float32), tiny, key=KEY)
    zeros = np.where(np.arange(50)[:, None] % 7 == 0, 0, VALUES).astype(np.float32)
    cache = method.prepare(KEYS.astype(np.float32), zeros, key=KEY, capacity=60)
    with pytest.raises(ValueError, match=sentence):
        cache.append(KEYS[:, :, :1].astype(np.float32), tiny[:, :, :1])
    grown = cache.append(KEYS[:, :, :1].astype(np.float32), np.zeros_like(tiny[:, :, :1]))
    assert grown.kv_len.tolist() == [51]
    outside = np.concatenate([tiny[:, :, :3], zeros], axis=2)
    padded = np.concatenate([KEYS[:, :, :3], KEYS], axis=2).astype(np.float32)
    assert method.prepare(padded, outside, key=KEY, kv_start=3).kv_len.tolist() == [50]


@pytest.mark.parametrize("method", [Socket.as_released(), SocketSampling(value_aware=True)], ids=["socket", "sampling"])
def test_one_short_value_of_any_sequence_is_refused(method):
    for sequence in (0, 1):
        keys, values = np.repeat(KEYS, 2, axis=0), np.repeat(VALUES, 2, axis=0)
        values[sequence, 1, 49] *= 1e-38
        with pytest.raises(ValueError, match="values have a vector that is not zero but shorter than 1e-32"):
            method.prepare(keys, values, key=KEY)


def test_magnitudes_that_squares_lose_are_refused():
    for tiny in (LEAST, 1e-200):
        for call in (
            lambda q: firing_probabilities(q),
            lambda q: sampled_query(q, np.ones(2, int), 3),
            lambda q: query_variance(q, 3, "iid"),
            lambda q: shared_query_variance(q[None], 3, "stratified"),
        ):
            with pytest.raises(ValueError, match="rescale to 1e-140 or pass zeros"):
                call(np.array([tiny, 0.0]))
    np.testing.assert_array_equal(firing_probabilities(np.zeros(3)), np.zeros(3))


def test_a_tiny_feature_of_an_ordinary_query_has_a_finite_variance():
    queries = np.array([[1.0, 1e-170, LEAST], [0.5, 2e-170, 0]])
    for sampler in ("iid", "stratified"):
        variance = shared_query_variance(queries, 3, sampler)
        assert np.isfinite(variance).all()
        own = query_variance(np.abs(queries).mean(axis=0), 3, sampler)
        np.testing.assert_allclose(variance[:, 1], own[1] * np.array([2 / 3, 4 / 3]) ** 2, rtol=1e-12)
