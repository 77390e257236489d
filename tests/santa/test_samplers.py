"""Counts of value rows are their definition, unbiased where that is promised, and the same for every tile length."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_theory import Key, Santa
from socket_theory.santa.law import prop_bias
from socket_theory.santa.samplers import iid_counts, stratified_counts, systematic_counts
from socket_theory.santa.tiles import (
    flash_budgets,
    floor_one_budgets,
    largest_remainder,
    merge_by_mass,
    tile_masses,
    tiled_counts,
)

UNBIASED = ["phase_carried", "systematic", "stratified", "iid", "flash", "floor_one"]
OFFSETS = Key.from_seed(2).generator().random(300)
GRID = (np.arange(3000) + 0.5) / 3000


def sampler(name: str, num_samples: int, tile_len: int = 5) -> Santa:
    return Santa(num_samples, name, None if name in ("systematic", "stratified", "iid") else tile_len)


def softmax_weights(seed: int, tokens: int, spread: float = 2.0) -> np.ndarray:
    scores = spread * np.random.default_rng(seed).standard_normal(tokens)
    weights = np.exp(scores - scores.max())
    weights[np.random.default_rng(seed).random(tokens) < 0.1] = 0
    return weights


@st.composite
def dyadic_laws(draw):
    """Integer weights that add up to a power of two, so that S F is exact in float64."""
    weights = np.array(draw(st.lists(st.integers(0, 50), min_size=1, max_size=40)))
    weights[draw(st.integers(0, len(weights) - 1))] += 1
    total = int(weights.sum())
    weights[draw(st.integers(0, len(weights) - 1))] += (1 << total.bit_length()) - total
    return weights.astype(float)


NUMERATORS = st.one_of(st.integers(0, 2**53 - 1), st.integers(0, 15).map(lambda k: k << 49))  # generic, and on edges


@given(dyadic_laws(), st.integers(1, 100), NUMERATORS, st.integers(1, 50))
def test_systematic_counts_are_their_definition_for_every_tile_length(weights, samples, numerator, tile_len):
    offset = Fraction(numerator, 2**53)
    edges = [Fraction(0), *(samples * Fraction(int(c), int(weights.sum())) for c in np.cumsum(weights))]
    expected = [floor(offset + b) - floor(offset + a) for a, b in pairwise(edges)]
    for tiles in (None, tile_len):
        assert systematic_counts(weights, samples, np.array(float(offset)), tiles).tolist() == expected


@pytest.mark.parametrize("tile_len", [1, 2, 3, 7, 64, 256, 999, 1000, 1001])
def test_phase_carried_tiles_are_systematic_sampling_but_at_roundings(tile_len):
    weights = softmax_weights(0, 1000)
    phases = OFFSETS[:, None] + 128 * np.cumsum(weights) / weights.sum()
    certain = (np.abs(phases - np.round(phases))[:, :-1] > 1e-10).all(axis=1)
    assert certain.mean() > 0.99
    whole, tiled = (systematic_counts(weights, 128, OFFSETS[certain], t) for t in (None, tile_len))
    np.testing.assert_array_equal(tiled, whole)


@pytest.mark.parametrize("samples", [1, 7, 128, 5000])
@pytest.mark.parametrize("tile_len", [None, 1, 13, 64])
def test_systematic_counts_add_up_and_lie_within_one_of_their_mean(samples, tile_len):
    weights = softmax_weights(samples, 200)
    offsets = np.concatenate([OFFSETS, [0.0, 1 - 2.0**-53]])
    counts = systematic_counts(weights, samples, offsets, tile_len)
    assert (counts >= 0).all()
    assert (counts.sum(axis=-1) == samples).all()
    assert (np.abs(counts - samples * weights / weights.sum()) < 1 + 1e-9).all()
    assert (counts[:, weights == 0] == 0).all()


@pytest.mark.parametrize("name", ["iid", "stratified"])
def test_counts_of_independent_points_tally_the_tokens_drawn(name):
    weights, points = softmax_weights(1, 30), Key.from_seed(3).generator().random((4, 50))
    counts = {"iid": iid_counts, "stratified": stratified_counts}[name](weights, points)
    law = np.cumsum(weights) / weights.sum()
    for row in range(4):
        places = points[row] if name == "iid" else [(m + u) / 50 for m, u in enumerate(points[row])]
        drawn = [int(np.flatnonzero(law > u)[0]) for u in places]
        assert counts[row].tolist() == [drawn.count(j) for j in range(30)]


def definition(name: str, weights: np.ndarray, samples: int, tile_len: int, uniforms: np.ndarray) -> np.ndarray:
    """What each sampler multiplies rows by, from the counts that it is named for."""
    if name in ("iid", "stratified"):
        return {"iid": iid_counts, "stratified": stratified_counts}[name](weights, uniforms) / samples
    if name in ("systematic", "phase_carried"):
        tiles = None if name == "systematic" else tile_len
        return systematic_counts(weights, samples, uniforms[0], tiles) / samples
    masses = tile_masses(weights, tile_len)
    if name == "biased_prop":
        return tiled_counts(weights, tile_len, largest_remainder(masses, samples), uniforms) / samples
    equal, floored = flash_budgets(len(masses), samples), floor_one_budgets(masses, samples)
    budgets = equal if name == "flash" else floored
    return merge_by_mass(tiled_counts(weights, tile_len, budgets, uniforms), weights, tile_len, budgets)


@pytest.mark.parametrize("samples", [4, 30])
@pytest.mark.parametrize("name", [*UNBIASED, "biased_prop"])
def test_row_weights_are_those_of_the_sampler_that_is_named(name, samples):
    """A mean cannot tell unbiased samplers apart, what they draw at given uniforms can."""
    method, weights = sampler(name, samples), softmax_weights(7, 23)
    for uniforms in Key.from_seed(4).generator().random((50, method.num_uniforms(23))):
        expected = definition(name, weights, samples, 5, uniforms)
        np.testing.assert_array_equal(method.draws(weights, uniforms), expected)


@pytest.mark.parametrize("samples", [3, 16, 100])
@pytest.mark.parametrize("name", UNBIASED)
def test_row_weights_are_unbiased_for_the_softmax_weights(name, samples):
    """Exactly, by quadrature over the uniform: a mean needs each uniform's marginal law only."""
    method, weights = sampler(name, samples), softmax_weights(4, 23)
    count = method.num_uniforms(23)
    mean = np.mean([method.draws(weights, np.full(count, u)) for u in GRID], axis=0)
    np.testing.assert_allclose(mean, weights / weights.sum(), atol=1e-3)


def test_row_weights_of_prop_have_the_bias_they_are_named_for():
    method, weights = sampler("biased_prop", 3), softmax_weights(4, 23)
    mean = np.mean([method.draws(weights, np.full(5, u)) for u in GRID], axis=0)
    bias = prop_bias(weights, np.eye(23), 3, 5)
    assert np.abs(bias).max() > 0.05
    np.testing.assert_allclose(mean - weights / weights.sum(), bias, atol=1e-3)


@pytest.mark.parametrize("name", [*UNBIASED, "biased_prop"])
@pytest.mark.parametrize("samples", [1, 4, 400])
def test_row_weights_add_up_to_one_and_avoid_masked_tokens(name, samples):
    method, weights = sampler(name, samples), softmax_weights(5, 31)
    weights[10:15] = 0  # a whole tile
    for points in Key.from_seed(1).generator().random((20, method.num_uniforms(31))):
        rows = method.draws(weights, points)
        assert (rows >= 0).all()
        assert rows.sum() == pytest.approx(1, rel=1e-12)
        assert (rows[weights == 0] == 0).all()


@pytest.mark.parametrize("name", [*UNBIASED, "biased_prop"])
def test_one_certain_token_is_the_whole_estimate(name):
    method, weights = sampler(name, 9), np.zeros(12)
    weights[8] = 0.3
    rows = method.draws(weights, np.full(method.num_uniforms(12), 0.99))
    assert rows.tolist() == [0] * 8 + [1] + [0] * 3


def test_an_offset_on_an_edge_counts_as_beyond_it():
    assert systematic_counts(np.ones(4), 2, np.array([0.0, 0.5])).tolist() == [[0, 1, 0, 1], [1, 0, 1, 0]]
    for method in (Santa(2, "systematic"), Santa(2, tile_len=3)):
        assert method.draws(np.ones(4), np.array([0.5])).tolist() == [0.5, 0, 0.5, 0]


def test_a_fixed_offset_is_biased():
    weights = np.array([0.3, 0.3, 0.4])
    assert systematic_counts(weights, 1, np.array(0.5)).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "weights",
    [np.zeros(3), np.array([1.0, -1.0]), np.array([np.nan]), np.ones((2, 2)), np.zeros(0), np.full(2, 1e308)],
)
def test_what_is_no_law_is_refused(weights):
    with pytest.raises(ValueError, match=r"pass \[N\] numbers of at least 0 whose sum is finite and above 0\.$"):
        systematic_counts(weights, 4, np.array(0.5))


def test_any_numbers_are_a_law():
    for weights in ([1, 2, 3], np.array([1, 2, 3]), np.array([1, 2, 3], dtype=np.float16)):
        assert systematic_counts(weights, 6, 0.5).tolist() == [1, 2, 3]
