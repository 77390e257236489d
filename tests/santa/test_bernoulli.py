"""Bernoulli scores: exact laws of the sampled query by enumeration, and what softmax and SANTA make of it."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest

from socket_theory import Bernoulli, BernoulliSanta, Budget, Dense, Key, Santa
from socket_theory.core.rng import uniform
from socket_theory.core.step import Step
from socket_theory.santa.query import (
    features_read,
    firing_probabilities,
    group_magnitudes,
    iid_hits,
    query_variance,
    sampled_query,
    score_covariance,
    shared_query_variance,
    shared_sampled_queries,
    softmax_bias,
    stratified_hits,
)

KEY = Key.from_seed(8)
QUERY = np.array([1.3, -0.4, 0.0, 0.9])
QUERIES = np.array([QUERY, [-0.2, 1.0, 0.0, 0.3]])
GRID = (np.arange(6000) + 0.5) / 6000


def outcomes(magnitudes: np.ndarray, vectors: int, sampler: str) -> tuple[np.ndarray, np.ndarray]:
    """Every vector of hits with its probability, features independent."""
    law = firing_probabilities(magnitudes)
    if sampler == "iid":
        single = [[(k, comb(vectors, k) * p**k * (1 - p) ** (vectors - k)) for k in range(vectors + 1)] for p in law]
    else:
        low = np.floor(vectors * law)
        single = [[(a, 1 - (vectors * p - a)), (a + 1, vectors * p - a)] for a, p in zip(low, law, strict=True)]
    rows = list(product(*single))
    return np.array([[k for k, _ in row] for row in rows]), np.array([np.prod([p for _, p in row]) for row in rows])


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("vectors", [1, 3, 8])
@pytest.mark.parametrize("sampler", ["iid", "stratified"])
def test_hits_follow_the_law_that_is_enumerated(sampler, vectors):
    law = firing_probabilities(QUERY)
    assert law.max() == 1
    if sampler == "stratified":
        hits = np.stack([stratified_hits(law, vectors, np.full(4, u)) for u in GRID])
        expected = [np.floor(vectors * law), np.floor(vectors * law) + (vectors * law % 1 > 0)]
        np.testing.assert_array_equal([hits.min(axis=0), hits.max(axis=0)], expected)
    else:
        points = KEY.generator().permuted(np.tile(GRID[:, None, None], (1, vectors, 4)), axis=0)
        hits = iid_hits(law, points)
        assert hits.max() <= vectors
    np.testing.assert_allclose(hits.mean(axis=0), vectors * law, atol=2e-3)


@pytest.mark.parametrize(("sampler", "vectors"), [*product(["iid", "stratified"], [1, 2, 5]), ("stratified", 37)])
def test_the_query_is_unbiased_with_the_stated_variance_and_reads(sampler, vectors):
    hits, probability = outcomes(QUERY, vectors, sampler)
    drawn = sampled_query(QUERY, hits, vectors)
    np.testing.assert_allclose(probability @ drawn, QUERY, atol=1e-14)
    np.testing.assert_allclose(probability @ (drawn - QUERY) ** 2, query_variance(QUERY, vectors, sampler), atol=1e-14)
    read = features_read(firing_probabilities(QUERY), vectors, sampler)
    np.testing.assert_allclose(probability @ (hits > 0), read, atol=1e-14)


def test_stratified_variance_is_below_iid_and_its_own_cap():
    for vectors in (1, 2, 4, 16):
        iid, stratified = (query_variance(QUERY, vectors, name) for name in ("iid", "stratified"))
        assert (stratified <= iid + 1e-15).all()
        assert (stratified <= (1.3 / vectors) ** 2 / 4 + 1e-15).all()
        np.testing.assert_allclose(iid, np.abs(QUERY) * (1.3 - np.abs(QUERY)) / vectors, atol=1e-15)


def test_a_smaller_divisor_clips_and_is_biased():
    hits = np.stack([stratified_hits(np.abs(QUERY) / 1.0, 4, np.full(4, u)) for u in GRID])
    assert np.minimum(hits, 4).mean(axis=0)[0] / 4 == pytest.approx(1.0)  # |q_0| = 1.3


@pytest.mark.parametrize("sampler", ["iid", "stratified"])
def test_a_shared_draw_is_unbiased_for_every_head_of_the_group(sampler):
    hits, probability = outcomes(group_magnitudes(QUERIES), 3, sampler)
    drawn = np.stack([shared_sampled_queries(QUERIES, row, 3) for row in hits])
    np.testing.assert_allclose(np.einsum("m,mgi->gi", probability, drawn), QUERIES, atol=1e-14)
    variance = np.einsum("m,mgi->gi", probability, (drawn - QUERIES) ** 2)
    np.testing.assert_allclose(variance, shared_query_variance(QUERIES, 3, sampler), atol=1e-14)


@pytest.mark.parametrize("sampler", ["iid", "stratified"])
def test_scores_have_the_stated_covariance(sampler):
    keys = KEY.generator().standard_normal((5, 4))
    hits, probability = outcomes(QUERY, 3, sampler)
    errors = 0.5 * (sampled_query(QUERY, hits, 3) - QUERY) @ keys.T
    exact = (probability[:, None] * errors).T @ errors
    np.testing.assert_allclose(score_covariance(keys, query_variance(QUERY, 3, sampler), 0.5), exact, atol=1e-14)


@pytest.mark.parametrize(("sampler", "order"), [("iid", 1), ("stratified", 2)])
def test_softmax_is_biased_by_the_second_order_formula(sampler, order):
    keys, vectors = 0.5 * KEY.generator().standard_normal((6, 4)), 12
    hits, probability = outcomes(QUERY, vectors, sampler)
    law = softmax(0.5 * keys @ QUERY)
    exact = probability @ softmax(0.5 * sampled_query(QUERY, hits, vectors) @ keys.T) - law
    covariance = score_covariance(keys, query_variance(QUERY, vectors, sampler), 0.5)
    predicted = softmax_bias(law, covariance)
    assert predicted.sum() == pytest.approx(0, abs=1e-16)
    assert np.linalg.norm(exact - predicted) < 0.05 * np.linalg.norm(exact)
    # Of another power of B it would be off by far more than the third order.
    assert np.linalg.norm(exact - predicted / vectors) > 0.5 * np.linalg.norm(exact)
    worst = np.max([query_variance(QUERY, b, sampler) * b**order for b in (4, 8, 16)], axis=0)
    assert (worst <= 1.3**2 / 4 + 1e-12).all()


KEYS, VALUES = KEY.fold_in("cache").generator().standard_normal((2, 2, 2, 40, 8))
QUERY_STEP = KEY.fold_in("query").generator().standard_normal((2, 4, 8))


def attend(method, key=KEY, query=QUERY_STEP):
    return method.attend(query, method.prepare(KEYS, VALUES), key=key)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("sampler", ["iid", "stratified"])
def test_many_vectors_are_dense_attention_and_few_are_not(sampler, shared):
    dense = Dense().attend(QUERY_STEP, Dense().prepare(KEYS, VALUES))
    few, many = (attend(Bernoulli(b, sampler, shared)) for b in (2, 20_000))
    assert np.abs(many.value - dense.value).max() < 0.03 < np.abs(few.value - dense.value).max()
    assert np.abs(many.lse - dense.lse).max() < 0.05
    assert (many.stats.bytes == 2 * 40 * 2 * 8 * 8).all()


def test_a_shared_query_is_one_draw_a_group():
    """Heads of a group that ask the same get the same answer if the draw is shared, and two if it is not."""
    query = np.repeat(QUERY_STEP[:, ::2], 2, axis=1)
    shared, own = (attend(Bernoulli(2, shared_query=flag), query=query).value for flag in (True, False))
    np.testing.assert_array_equal(shared[:, ::2], shared[:, 1::2])
    assert (np.abs(own[:, ::2] - own[:, 1::2]).max(axis=-1) > 1e-3).all()


def test_the_shared_draw_is_that_of_the_first_head():
    group = QUERY_STEP[1, 2:]
    points = uniform(KEY, (4 * 1 + 2) << 32 | np.arange(8))
    mean = np.abs(group).mean(axis=0)
    hits = np.floor(5 * mean / mean.max() + points)
    logits = KEYS[1, 1] @ (group * mean.max() * hits / 5 / mean).T / np.sqrt(8)
    np.testing.assert_allclose(attend(Bernoulli(5, shared_query=True)).value[1, 2:], softmax(logits.T) @ VALUES[1, 1])


def test_sampled_values_on_sampled_scores_are_santa_asked_the_sampled_query():
    method = BernoulliSanta(num_samples=7, tile_len=9, num_vectors=3, query_sampler="iid")
    drawn = attend(method)
    scores = Bernoulli(3, "iid")
    assert method.scoring == scores
    np.testing.assert_array_equal(drawn.lse, attend(scores, KEY.fold_in("query")).lse)
    santa = Santa(7, tile_len=9)
    asked = np.array([[_sampled(row, head) for head in range(4)] for row in range(2)])
    expected = santa.attend(asked, santa.prepare(KEYS, VALUES), key=KEY)
    np.testing.assert_allclose(drawn.value, expected.value, rtol=1e-10)
    np.testing.assert_array_equal(drawn.indices, expected.indices)


def _sampled(row: int, head: int) -> np.ndarray:
    query = QUERY_STEP[row, head]
    points = uniform(KEY.fold_in("query"), (4 * row + head) << 32 | np.arange(24)).reshape(3, 8)
    fired = (points < np.abs(query) / np.abs(query).max()).mean(axis=0)
    return np.sign(query) * np.abs(query).max() * fired


def test_only_exact_scores_know_the_mass_they_capture():
    assert attend(Santa(7)).stats.captured_mass is not None
    assert attend(Bernoulli(2)).stats.captured_mass is None
    assert attend(BernoulliSanta(7, num_vectors=2)).stats.captured_mass is None


@pytest.mark.parametrize("sampler", ["iid", "stratified"])
def test_the_lse_of_sampled_scores_is_too_large_by_half_their_variance(sampler):
    """Of scores under p, to second order; so a state merged by it weighs too much."""
    keys, vectors = 0.5 * KEY.generator().standard_normal((6, 4)), 12
    hits, probability = outcomes(QUERY, vectors, sampler)
    logits = 0.5 * sampled_query(QUERY, hits, vectors) @ keys.T
    law = softmax(0.5 * keys @ QUERY)
    exact = probability @ np.log(np.exp(logits).sum(axis=-1)) - np.log(np.exp(0.5 * keys @ QUERY).sum())
    covariance = score_covariance(keys, query_variance(QUERY, vectors, sampler), 0.5)
    assert 0 < exact == pytest.approx((law @ np.diag(covariance) - law @ covariance @ law) / 2, rel=0.05)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_sampled_query_is_not_rounded_to_the_cache(dtype):
    """A third, which 16 bits hold with an error that would be a bias."""
    keys, query = KEYS.astype(dtype), np.zeros((2, 4, 8), dtype=dtype)
    query[..., 0], query[..., 1:] = 1, dtype(0.4)
    method = Bernoulli(3)
    drawn = method.sample_query(Step(query, method.prepare(keys, keys), 1.0), KEY)
    assert drawn.dtype == (np.float64 if dtype is np.float64 else np.float32)
    points = uniform(KEY, np.arange(8)[:, None, None] << 32 | np.arange(8)).reshape(2, 4, 8)
    expected = stratified_hits(query.astype(float), 3, points) / 3
    assert {*np.rint(3 * expected[..., 1:]).ravel()} == {1, 2}
    np.testing.assert_allclose(drawn, expected, rtol=2.0**-23)


def test_a_query_of_zeros_stays_one():
    estimate = attend(Bernoulli(2, shared_query=True), query=np.zeros((2, 4, 8)))
    np.testing.assert_allclose(estimate.value, np.repeat(VALUES.mean(axis=2), 2, axis=1))


def test_settings_and_arguments_are_refused_in_sentences():
    with pytest.raises(ValueError, match="query_sampler='both' is unknown: pass one of stratified, iid"):
        Bernoulli(query_sampler="both")
    with pytest.raises(ValueError, match="num_vectors=0 was given"):
        BernoulliSanta(num_vectors=0)
    with pytest.raises(TypeError, match="shared_query=1 is of type int"):
        BernoulliSanta(shared_query=1)
    cache = Bernoulli().prepare(KEYS, VALUES)
    with pytest.raises(TypeError, match=r"Bernoulli draws at every step, key=None was given"):
        Bernoulli().attend(QUERY_STEP, cache)
    with pytest.raises(TypeError, match="Bernoulli does not use budget"):
        Bernoulli().attend(QUERY_STEP, cache, key=KEY, budget=Budget(tokens=4))
