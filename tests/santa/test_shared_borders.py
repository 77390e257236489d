"""The border of two tiles, and of two strata, is one number, and the last one is exactly the number of draws."""

from __future__ import annotations

import numpy as np
import pytest

from socket_theory.santa.law import stratum_laws, systematic_law
from socket_theory.santa.samplers import carried_cumsum, stratified_counts, systematic_counts
from socket_theory.santa.tiles import tiled_counts

ENDS = np.array([0.0, 1 - 2.0**-53])


def uneven(seed: int, tokens: int) -> np.ndarray:
    return np.random.default_rng(seed).gamma(0.3, size=tokens)


@pytest.mark.parametrize("tile_len", [16, 129, 256])
@pytest.mark.parametrize("seed", range(8))
def test_a_tile_begins_where_the_one_before_it_ended_bit_for_bit(seed: int, tile_len: int) -> None:
    weights = uneven(seed, 2000)
    weights[::tile_len] = 0
    total = carried_cumsum(weights, tile_len)
    assert (np.diff(total) >= 0).all()
    np.testing.assert_array_equal(total[tile_len::tile_len], total[tile_len - 1 : -1 : tile_len])


@pytest.mark.parametrize("samples", [1, 49, 128, 1000])
@pytest.mark.parametrize("tile_len", [None, 16, 129])
def test_the_last_edge_is_the_number_of_draws(samples: int, tile_len: int | None) -> None:
    for seed in range(30):
        weights = uneven(seed, 300)
        assert systematic_counts(weights, samples, ENDS, tile_len).sum(axis=-1).tolist() == [samples] * 2


@pytest.mark.parametrize("tile_len", [1, 16, 129])
def test_the_last_edge_of_a_tile_is_its_budget(tile_len: int) -> None:
    """1/49 times 49 is below 1, and a sum in another order than the scan's may be above or below its end."""
    for seed in range(30):
        weights = uneven(seed, 300) + 49
        tiles = -(-300 // tile_len)
        budgets = np.arange(tiles) % 5 + 1
        counts = tiled_counts(
            np.where(np.arange(300) % 2, weights, 49.0), tile_len, budgets, np.repeat(ENDS, tiles).reshape(2, -1)
        )
        found = np.add.reduceat(counts, np.arange(0, 300, tile_len), axis=-1)
        assert found.tolist() == [budgets.tolist()] * 2


@pytest.mark.parametrize("total", [1.0, 3.0, 49.0, 98.0, 1e-300])
def test_one_token_fills_every_stratum(total: float) -> None:
    for samples in (1, 7, 49):
        assert (stratum_laws(np.array([total]), samples) == 1).all()
        law = systematic_law(np.array([total]), samples)
        assert law.counts.tolist() == [[samples]] * len(law.counts)
        assert law.probability.sum() == 1


def test_strata_cover_every_token_once() -> None:
    for seed in range(10):
        weights = uneven(seed, 60)
        laws = stratum_laws(weights, 49)
        np.testing.assert_allclose(laws.sum(axis=1), 1, atol=1e-13)
        np.testing.assert_allclose(laws.sum(axis=0), 49 * weights / weights.sum(), atol=1e-13)


def test_points_at_the_ends_of_strata_stay_on_tokens_of_weight() -> None:
    for seed in range(20):
        weights = uneven(seed, 40)
        weights[-3:] = 0
        counts = stratified_counts(weights, np.repeat(ENDS, 49).reshape(2, -1))
        assert counts.sum(axis=-1).tolist() == [49, 49]
        assert (counts[:, -3:] == 0).all()


def test_the_last_cell_of_offsets_may_be_as_short_as_the_step_below_1() -> None:
    law = systematic_law(np.array([2.0**-53, 1.0]), 1)
    assert law.counts[-1].tolist() == [1, 0]
    assert law.probability[-1] == 2.0**-53
    assert law.mean().tolist() == [2.0**-53, 1 - 2.0**-53]
