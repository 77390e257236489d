"""The range of a table's residual (S9): against every corner of the weights, and about every target."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_theory.bounds.residual_range import residual_range, residual_range_of_any_target

WEIGHTS = 0.2, 0.9


def longest(residuals: np.ndarray) -> float:
    """The norm is convex in the weights, so that a corner of their box has the largest."""
    corners = np.array(list(product(WEIGHTS, repeat=len(residuals))))
    return float(np.max(np.linalg.norm(corners @ residuals, axis=1)))


@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 4), st.booleans())
def test_no_weights_make_a_longer_residual(seed: int, count: int, width: int, outlier: bool) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((count, width))
    values[0] *= 100 if outlier else 1
    target = rng.dirichlet(np.ones(count)) @ values
    true, known = longest(values - target), residual_range(WEIGHTS, values - target)
    anywhere = residual_range_of_any_target(WEIGHTS, values)
    furthest = float(np.max(np.linalg.norm(values - target, axis=1)))
    assert true <= known * (1 + 1e-12) + 1e-12
    assert known <= anywhere * (1 + 1e-12) + 1e-12
    assert known <= count * WEIGHTS[1] * furthest * (1 + 1e-12)


@given(st.integers(0, 10**6), st.floats(0, 10))
def test_a_target_further_away_adds_no_more_than_all_weights_times_the_way(seed: int, distance: float) -> None:
    rng = np.random.default_rng(seed)
    rows, way = rng.standard_normal((9, 3)), rng.standard_normal(3)
    way *= distance / np.linalg.norm(way)
    assert residual_range(WEIGHTS, rows - way) <= residual_range(WEIGHTS, rows) + 9 * WEIGHTS[1] * distance + 1e-12


def test_opposite_values_attain_it() -> None:
    residuals = np.repeat([[1.0, 0.0], [-1.0, 0.0]], 4, axis=0)
    assert residual_range(WEIGHTS, residuals) == pytest.approx(longest(residuals), rel=1e-12)


def test_values_in_many_directions_cannot_all_add_up() -> None:
    """A range that is near 1/sqrt(E) of the sum of the lengths, and not below what aligned signs reach."""
    rng = np.random.default_rng(3)
    values = rng.standard_normal((4096, 64))
    values -= values.mean(axis=0)
    lengths = float(np.linalg.norm(values, axis=1).sum())
    signs = np.sign(values @ np.linalg.svd(values, full_matrices=False)[2][0])
    reached = float(np.linalg.norm(signs @ values)) / 2
    assert reached <= residual_range((0.0, 1.0), values) < 1.2 * lengths / 2 / 64**0.5


def test_one_long_value_is_no_longer_than_the_sum_of_the_lengths() -> None:
    values = np.concatenate([[[1000.0]], np.full((99, 1), 1.0)])
    assert residual_range((0.0, 2.0), values) == pytest.approx(2 * 1099.0)


def test_a_target_is_a_mean_of_the_values_and_the_origin_does_not_matter() -> None:
    values = np.random.default_rng(5).standard_normal((12, 3))
    moved = residual_range_of_any_target(WEIGHTS, values + np.array([10.0, -20.0, 30.0]))
    assert moved == pytest.approx(residual_range_of_any_target(WEIGHTS, values))
    for value in values:
        assert residual_range(WEIGHTS, values - value) <= moved * (1 + 1e-12)


@pytest.mark.parametrize("scale", [1e-170, 1e160, 1e200])
def test_it_scales_with_the_values_where_their_squares_leave_float64(scale: float) -> None:
    rows = np.array([[1.0, 0.0], [-1.0, 0.5], [0.25, -2.0]])
    for bound in (residual_range, residual_range_of_any_target):
        assert bound((0.1, 0.2), scale * rows) == pytest.approx(scale * bound((0.1, 0.2), rows), rel=1e-12, abs=0)


def test_values_without_entries_are_refused() -> None:
    with pytest.raises(ValueError, match="the number of columns of residuals=0 was given"):
        residual_range((0.1, 0.2), np.zeros((3, 0)))
