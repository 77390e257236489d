"""B.1 and its extensions against exact laws, and the byte model against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from socket_theory.bounds.importance import SamplingSpread, plain_spread
from socket_theory.santa.bounds import (
    bennett_failure,
    flash_spread,
    prop_spread,
    sampling_failure,
    stratified_spread,
    two_term_radius,
)
from socket_theory.santa.cost import DecodeShape, iid_inclusion, systematic_inclusion
from socket_theory.santa.law import prop_bias, stratified_covariance, systematic_covariance
from socket_theory.santa.samplers import stratified_counts
from socket_theory.santa.tiles import flash_budgets, largest_remainder, merge_by_mass, tile_masses, tiled_counts

SPREAD = SamplingSpread(radius=3.0, variance=0.7)


def instance(seed: int, tokens: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.gamma(0.4, size=tokens), rng.standard_normal((tokens, 3)) + rng.standard_normal(3) * 5


def two_points(rare: float) -> SamplingSpread:
    """A row of probability `rare` at distance 1 from all the others."""
    return plain_spread(np.array([rare, 1 - rare]), np.array([[1.0], [0.0]]))


@pytest.mark.parametrize("samples", [8, 64, 512])
@pytest.mark.parametrize("rare", [1e-3, 0.02, 0.3, 0.5])
def test_it_holds_on_two_points_exactly(rare, samples):
    hits = np.arange(1, samples + 1)
    hits = hits[hits > samples * rare + 1e-9]
    deviation = hits / samples - rare
    law = binom(samples, rare)
    truth = law.sf(hits - 1) + law.cdf(np.floor(samples * (rare - deviation) + 1e-9))
    spread = two_points(rare)
    bennett = bennett_failure(deviation, samples, spread)
    assert (truth <= bennett * (1 + 1e-9)).all()
    assert (bennett <= sampling_failure(deviation, samples, spread) * (1 + 1e-9)).all()


def test_the_linear_term_and_the_prefactor_are_needed():
    """A rare row of p = 0.001 in 512 draws: four hits, and any hit at all."""
    rare, samples = 1e-3, 512
    spread = two_points(rare)
    four = 4 / samples - rare
    truth = binom(samples, rare).sf(3)
    assert 2 * np.exp(-samples * four**2 / (2 * spread.variance)) < truth / 50
    assert truth == pytest.approx(1.9e-3, rel=0.05)
    assert float(sampling_failure(four, samples, spread)) == pytest.approx(5.3e-2, rel=0.02)
    any_hit = 1 / samples - rare  # no hit at all is further away
    assert float(sampling_failure(any_hit, samples, spread)) == 1
    assert np.exp(-samples * any_hit**2 / (2 * (spread.variance + spread.radius * any_hit / 3))) < 0.85


def test_the_spread_is_about_the_mean_and_not_about_zero():
    weights, values = instance(0)
    far = plain_spread(weights, values + 1000)
    assert far.radius == pytest.approx(plain_spread(weights, values).radius, rel=1e-9)
    assert far.radius < np.linalg.norm(values + 1000, axis=1).min()


@given(st.floats(1e-9, 0.999), st.integers(1, 10**6))
def test_the_inversion_is_exact_and_below_two_terms(delta, samples):
    radius = SPREAD.bernstein(delta, samples)
    assert float(sampling_failure(radius, samples, SPREAD)) == pytest.approx(min(1, delta), rel=1e-9)
    assert radius <= two_term_radius(delta, samples, SPREAD) * (1 + 1e-12)


@given(st.floats(1e-3, 10), st.floats(1e-9, 0.5))
def test_the_sample_size_is_the_smallest(epsilon, delta):
    samples = SPREAD.bernstein_samples(epsilon, delta)
    assert float(sampling_failure(epsilon, samples, SPREAD)) <= delta * (1 + 1e-9)
    if samples > 1:
        assert float(sampling_failure(epsilon, samples - 1, SPREAD)) >= delta * (1 - 1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("samples", [1, 6, 80])
def test_strata_have_the_spread_of_their_draws(seed, samples):
    weights, values = instance(seed)
    spread, plain = stratified_spread(weights, values, samples), plain_spread(weights, values)
    assert spread.variance == pytest.approx(samples * np.trace(stratified_covariance(weights, values, samples)))
    assert spread.variance <= plain.variance * (1 + 1e-12)
    if samples == 1:
        assert spread.radius == pytest.approx(plain.radius)
    points = np.random.default_rng(seed).random((4000, samples))
    output = weights @ values / weights.sum()
    errors = np.linalg.norm(stratified_counts(weights, points) @ values / samples - output, axis=1)
    assert np.mean(errors > spread.bernstein(0.05, samples)) <= 0.05
    assert errors.max() <= spread.radius * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_tiles_have_the_spread_of_their_draws(seed):
    weights, values = instance(seed)
    masses, offsets = tile_masses(weights, 8), np.random.default_rng(seed).random((4000, 4))
    output = weights @ values / weights.sum()
    budgets = flash_budgets(4, 9)
    flash = merge_by_mass(tiled_counts(weights, 8, budgets, offsets), weights, 8, budgets) @ values
    spread = flash_spread(weights, values, 9, 8)
    by_hand = [np.trace(systematic_covariance(weights[t : t + 8], values[t : t + 8], 2)) for t in range(0, 30, 8)]
    assert spread.variance == pytest.approx(masses**2 @ by_hand)
    errors = np.linalg.norm(flash - output, axis=1)
    assert np.mean(errors > spread.bernstein(0.05, 1)) <= 0.05
    assert (errors**2).mean() == pytest.approx(spread.variance, rel=0.1)

    prop = tiled_counts(weights, 8, largest_remainder(masses, 9), offsets) @ values / 9
    mean, spread = output + prop_bias(weights, values, 9, 8), prop_spread(weights, values, 9, 8)
    errors = np.linalg.norm(prop - mean, axis=1)
    assert (errors**2).mean() == pytest.approx(spread.variance, rel=0.1)
    assert np.mean(errors > spread.bernstein(0.05, 1)) <= 0.05


def test_radii_of_strata_and_tiles_by_hand():
    weights, values = np.array([1.0, 1.0, 2.0]), np.array([[4.0], [0.0], [10.0]])
    assert stratified_spread(weights, values, 2) == SamplingSpread(2.0, 2.0)  # strata {4, 0} and {10}
    assert stratified_spread(weights, values, 4) == SamplingSpread(0.0, 0.0)
    assert flash_spread(weights, values, 2, 2) == SamplingSpread(0.5 * 2, 0.25 * 4)  # tiles {4, 0} and {10}
    assert prop_spread(np.array([1.0, 1.0, 1.0]), values, 3, 2) == SamplingSpread(2 / 3 * 2, 0.0)


def test_a_row_without_weight_widens_nothing():
    weights, values = [1.0, 1.0, 0.0, 2.0], [[4.0], [0.0], [1e200], [10.0]]
    assert plain_spread(weights, values) == SamplingSpread(6.0, 18.0)
    assert flash_spread(weights, values, 2, 2) == SamplingSpread(0.5 * 2, 0.25 * 4)
    assert prop_spread(weights, values, 2, 2) == SamplingSpread(0.5 * 2, 0.25 * 4)
    assert stratified_spread(weights, values, 2) == SamplingSpread(2.0, 2.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_a_spread_that_is_no_number_is_refused(bad):
    for name in ("radius", "variance"):
        with pytest.raises(ValueError, match=rf"{name}={bad}.*pass finite numbers of at least 0"):
            SamplingSpread(**({"radius": 1.0, "variance": 1.0} | {name: bad}))


def test_a_stratum_has_the_rows_it_meets_and_none_by_rounding():
    """49 strata of a token each, whose edges are not exact; and a row that is small, but all inside one."""
    assert stratified_spread(np.ones(49), np.arange(49.0)[:, None], 49).radius < 1e-12
    small = stratified_spread(np.array([1.0, 1e-15, 1.0]), np.array([[0.0], [100.0], [0.0]]), 1)
    assert small.radius == pytest.approx(100)


def test_without_spread_no_deviation_occurs():
    one_hot = plain_spread(np.array([0.0, 1.0]), np.array([[1.0], [2.0]]))
    assert one_hot == SamplingSpread(0.0, 0.0)
    for failure in (sampling_failure, bennett_failure):
        assert failure([0.0, 1e-300, 0.1], 4, one_hot).tolist() == [1, 0, 0]
        assert failure(0.0, 4, SPREAD) == 1
    assert one_hot.bernstein(0.05, 4) == 0
    assert one_hot.bernstein_samples(0.1, 0.05) == 1
    # A radius without a variance, as of tiles that draw every row: Bennett's limit is 0, B.1 says less.
    assert bennett_failure(0.1, 4, SamplingSpread(1.0, 0.0)) == 0
    assert sampling_failure(0.5, 4, SamplingSpread(1.0, 0.0)) == pytest.approx(2 * np.exp(-4 * 0.5 * 3 / 2))


def test_one_offset_for_all_counts_breaks_the_bound_for_independent_draws():
    samples = 64
    weights, values = np.ones(2 * samples), np.tile([[1.0], [-1.0]], (samples, 1))
    assert float(systematic_covariance(weights, values, samples)[0, 0]) == pytest.approx(1)  # |m^| = 1, always
    assert float(sampling_failure(1.0, samples, plain_spread(weights, values))) < 1e-9


LLAMA = DecodeShape(kv_len=32768, num_qo_heads=32, num_kv_heads=8, head_dim=128)
MIB = 2**20


def test_the_byte_model_of_a_step_of_32_heads():
    assert LLAMA.dense() == 128 * MIB
    assert LLAMA.score_scratch(128) == 4 * MIB + 40 * 32 * 128
    assert LLAMA.sampled(4 * 128, LLAMA.score_scratch(128)) == (64 + 1 + 4) * MIB + 40 * 32 * 128
    assert LLAMA.speedup_limit(4 * 128, LLAMA.score_scratch(128)) == pytest.approx(1.86, abs=0.01)
    assert LLAMA.sampled(4 * 2048, LLAMA.partial_scratch(128)) == (64 + 16 + 4) * MIB
    assert LLAMA.speedup_limit(4 * 2048, LLAMA.partial_scratch(128)) == pytest.approx(1.52, abs=0.01)
    assert LLAMA.speedup_limit(0) == 2
    assert LLAMA.speedup_limit(0, key_share=0.5) == 4


def test_inclusion_without_a_mass_is_nothing_and_with_all_of_it_certain():
    for inclusion in (iid_inclusion, systematic_inclusion):
        assert inclusion(np.array([0.0, 2.0]), 5).tolist() == [0, 1]
    assert systematic_inclusion(np.array([1.0, 3.0]), 2).tolist() == [0.5, 1]


@pytest.mark.parametrize("weights", [np.zeros(3), np.ones((2, 2))])
def test_what_is_no_law_is_refused(weights):
    with pytest.raises(ValueError, match="pass"):
        stratified_spread(weights, np.ones((len(weights), 2)), 4)
    with pytest.raises(ValueError, match=r"pass \[3, E\]"):
        flash_spread(np.ones(3), np.ones((2, 2)), 4, 2)
