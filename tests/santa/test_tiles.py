"""Budgets of tiles: what flash, floor one and proportional tiles spend, and what it costs them."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_theory.santa.bounds import rounded_mass, rounded_mass_bound
from socket_theory.santa.cost import tiled_inclusion
from socket_theory.santa.law import prop_bias, systematic_law, tile_means, tiled_covariance
from socket_theory.santa.samplers import split_tiles, systematic_counts
from socket_theory.santa.tiles import (
    flash_budgets,
    floor_one_budgets,
    largest_remainder,
    merge_by_mass,
    tile_masses,
    tiled_counts,
)


@pytest.mark.parametrize("samples", [1, 7, 128, 1000])
def test_largest_remainders_go_to_the_right_tiles_for_every_number_of_tiles(samples):
    for tiles in range(1, 301):
        masses = np.random.default_rng(tiles).dirichlet(np.full(tiles, 0.3))
        budgets = largest_remainder(masses, samples)
        quotas = [samples * Fraction(mass) for mass in masses.tolist()]
        floors = [floor(quota) for quota in quotas]
        order = sorted(range(tiles), key=lambda t: (quotas[t] - floors[t], t), reverse=True)
        assert budgets.sum() == samples
        assert set(np.flatnonzero(budgets > floors)) == set(order[: samples - sum(floors)])


def test_integer_quotas_are_kept_and_ties_go_to_the_later_tile():
    assert largest_remainder(np.array([0.25, 0.5, 0.25]), 4).tolist() == [1, 2, 1]
    assert largest_remainder(np.full(4, 0.25), 2).tolist() == [0, 0, 1, 1]


def test_flash_rounds_down_and_never_below_one():
    assert flash_budgets(129, 2048).tolist() == [15] * 129  # 1935 draws
    assert flash_budgets(129, 64).tolist() == [1] * 129
    assert floor_one_budgets(np.array([0.9, 0.05, 0.05]), 4).tolist() == [4, 1, 1]


@pytest.mark.parametrize(("masses", "samples", "expected"), [((0.6, 0.4), 1, 0.4), ((0.7, 0.3), 2, -0.2)])
def test_two_tiles_have_the_bias_worked_out_by_hand(masses, samples, expected):
    """bias = 0.4 (mu_1 - mu_2), and 0.2 (mu_2 - mu_1)."""
    values = np.array([[3.0, 1.0], [-1.0, 2.0]])
    bias = prop_bias(np.array(masses), values, samples, tile_len=1)
    np.testing.assert_allclose(bias, expected * (values[0] - values[1]), atol=1e-15)


def test_prop_is_unbiased_where_quotas_are_integers_or_tiles_agree():
    weights, values = np.array([1.0, 3.0, 2.0, 2.0]), np.arange(8.0).reshape(4, 2)
    np.testing.assert_allclose(prop_bias(weights, values, 6, 2), 0, atol=1e-15)
    same = np.tile(values[:2], (2, 1))
    np.testing.assert_allclose(prop_bias(np.array([1.0, 3.0, 0.5, 1.5]), same, 1, 2), 0, atol=1e-15)


@given(st.integers(1, 60), st.integers(1, 200), st.integers(0, 10**6))
def test_the_rounded_mass_keeps_its_bound_and_bounds_the_bias(tiles, samples, seed):
    rng = np.random.default_rng(seed)
    masses, means = rng.dirichlet(np.full(tiles, 0.5)), rng.standard_normal((tiles, 3))
    moved = rounded_mass(masses, samples)
    assert moved <= rounded_mass_bound(tiles, samples) + 1e-12
    apart = np.linalg.norm(means[:, None] - means, axis=-1).max()
    assert np.linalg.norm(prop_bias(masses, means, samples, 1)) <= moved * apart + 1e-12


def test_the_rounded_mass_bound_is_attained_by_halves():
    assert rounded_mass(np.full(8, 1 / 8), 4) == pytest.approx(rounded_mass_bound(8, 4))


@pytest.mark.parametrize("tile_len", [1, 3, 5, 8])
def test_each_tile_draws_systematically_from_its_own_law(tile_len):
    weights = np.random.default_rng(3).gamma(0.5, size=13)
    tiles = -(-13 // tile_len)
    budgets, offsets = np.arange(1, tiles + 1), np.random.default_rng(4).random((6, tiles))
    counts = tiled_counts(weights, tile_len, budgets, offsets)
    for tile in range(tiles):
        rows = slice(tile * tile_len, (tile + 1) * tile_len)
        own = systematic_counts(weights[rows], int(budgets[tile]), offsets[:, tile])
        np.testing.assert_array_equal(counts[:, rows], own)


def test_budgets_may_be_drawn_too():
    """Systematic rounding of the quotas, then offsets of their own, is unbiased: E S_t = S w_t."""
    weights = np.random.default_rng(5).gamma(0.5, size=12)
    law = systematic_law(tile_masses(weights, 4), 5)
    grid = (np.arange(4000) + 0.5) / 4000
    mean = np.zeros(12)
    for budgets, probability in zip(law.counts, law.probability, strict=True):
        mean += probability * tiled_counts(weights, 4, budgets, np.repeat(grid[:, None], 3, axis=1)).mean(axis=0)
    np.testing.assert_allclose(mean, 5 * weights / weights.sum(), atol=1e-3)


def test_a_merge_by_counts_over_samples_is_not_the_merge_by_mass():
    weights = np.array([3.0, 1.0, 1.0, 1.0])
    counts = tiled_counts(weights, 2, np.array([1, 1]), np.array([0.5, 0.9]))
    assert merge_by_mass(counts, weights, 2, np.array([1, 1])).sum() == pytest.approx(1)
    assert merge_by_mass(counts, weights, 2, np.array([1, 1]))[:2].sum() == pytest.approx(2 / 3)


def test_the_covariance_of_tiles_is_that_of_independent_offsets():
    """All pairs of a grid of offsets for two tiles, ragged, with values that differ between the tiles."""
    rng = np.random.default_rng(6)
    weights, values = rng.gamma(0.5, size=7), rng.standard_normal((7, 2)) + np.repeat([[0.0], [3.0]], [4, 3], axis=0)
    budgets, grid = np.array([2, 3]), (np.arange(400) + 0.5) / 400
    offsets = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 2)
    outputs = merge_by_mass(tiled_counts(weights, 4, budgets, offsets), weights, 4, budgets) @ values
    exact = tiled_covariance(weights, values, 4, budgets, tile_masses(weights, 4))
    np.testing.assert_allclose(np.cov(outputs.T, bias=True), exact, atol=5e-3 * np.trace(exact))
    np.testing.assert_allclose(outputs.mean(axis=0), weights @ values / weights.sum(), atol=5e-3)


def test_tiles_of_no_mass_have_no_mean_and_draw_nothing():
    weights, values = np.array([1.0, 1.0, 0.0, 0.0, 2.0]), np.ones((5, 1))
    assert tile_means(weights, values, 2).tolist() == [[1.0], [0.0], [1.0]]
    assert tiled_counts(weights, 2, np.array([2, 2, 2]), np.full(3, 0.5)).tolist() == [1, 1, 0, 0, 2]
    assert tiled_inclusion(weights, 2, np.array([1, 1, 1])).tolist() == [0.5, 0.5, 0, 0, 1]


def test_a_row_that_is_sure_to_be_drawn_is_read_once():
    weights = np.array([3.0, 1.0, 1.0, 1.0])
    assert tiled_inclusion(weights, 2, np.array([2, 2])).tolist() == [1, 0.5, 1, 1]
    assert tiled_inclusion(weights, 2, np.array([0, 9])).tolist() == [0, 0, 1, 1]


def test_tiles_are_padded_with_zeros():
    assert split_tiles(np.arange(1.0, 6.0), 3).tolist() == [[1, 2, 3], [4, 5, 0]]
