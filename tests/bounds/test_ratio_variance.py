"""The variance form (S9): its two moments, where it is attained, what it is never above, and its inverse."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from socket_theory.bounds.ratio import chebyshev_radius, fourth_moment_radius
from socket_theory.bounds.ratio_variance import variance_radius, variance_tables
from socket_theory.bounds.residual import ResidualMoments
from socket_theory.core.rng import Key

Float = np.ndarray[Any, np.dtype[np.float64]]
DELTA = 0.05
POINTS = np.array([[3.0, 0.0], [-1.0, 2.0], [-1.0, -2.0], [-1.0, 0.0]])  # a centred law, each with probability 1/4


def moments_of(points: Float, chances: Float) -> ResidualMoments:
    """Exact moments of a law on `points`, with these probabilities."""
    sigma, squares = (points.T * chances) @ points, (points**2).sum(axis=1)
    return ResidualMoments(float(np.trace(sigma)), float((sigma**2).sum()), float(chances @ squares**2))


@pytest.mark.parametrize("num_tables", [1, 2, 5])
def test_the_variance_of_a_squared_mean_is_exact(num_tables: int) -> None:
    means = [np.mean(sample, axis=0) for sample in itertools.product(POINTS, repeat=num_tables)]
    moments = moments_of(POINTS, np.full(4, 0.25))
    assert moments.mean_square_variance(num_tables) == pytest.approx(np.var([m @ m for m in means]))


def test_a_variance_that_is_given_replaces_the_difference_of_upper_bounds() -> None:
    assert ResidualMoments(2.0, 1.0, 5.0, 7.0).mean_square_variance(1) == 7.0
    assert ResidualMoments(2.0, 1.0, 5.0).mean_square_variance(1) == 1.0


def test_a_law_of_two_lengths_attains_it() -> None:
    """|X|^2 is 4 with probability delta and 1 otherwise, in a direction of either sign."""
    points, chances = np.array([[2.0], [-2.0], [1.0], [-1.0]]), np.array([DELTA, DELTA, 1 - DELTA, 1 - DELTA]) / 2
    assert float(variance_radius(DELTA, 1, moments_of(points, chances), 1.0)) == pytest.approx(2.0)
    assert float(variance_radius(1.01 * DELTA, 1, moments_of(points, chances), 1.0)) < 2.0


@pytest.mark.parametrize("delta", [0.3, 0.05, 1e-4])
@pytest.mark.parametrize("num_tables", [1, 3, 60])
def test_it_is_never_above_the_forms_of_one_moment(delta: float, num_tables: int) -> None:
    rng = Key.from_seed(2).generator()
    for rare in (0.5, 0.1, 1e-3, 1e-6):
        points = rng.standard_normal((6, 3)) * np.array([1, 1, 1, 1, 1, rare**-0.5])[:, None]
        chances = np.array([1, 1, 1, 1, 1, rare])
        moments = moments_of(np.vstack([points, -points]), np.tile(chances / chances.sum() / 2, 2))
        radius = variance_radius(delta, num_tables, moments, 2.0)
        others = (
            chebyshev_radius(delta, num_tables, moments.second, 2.0),
            fourth_moment_radius(delta, num_tables, moments, 2.0),
        )
        assert radius <= min(others) * (1 + 1e-12)


@pytest.mark.parametrize("delta", [0.3, 1e-6])
@pytest.mark.parametrize("epsilon", [0.003, 0.1])
def test_tables_invert_the_radius(delta: float, epsilon: float) -> None:
    moments = ResidualMoments(2.0, 0.5, 11.0)
    tables = variance_tables(epsilon, delta, moments, 3.0)
    assert variance_radius(delta, tables, moments, 3.0) <= epsilon
    assert variance_radius(delta, tables - 1, moments, 3.0) > epsilon
    assert variance_tables(1e3, delta, moments, 3.0) == 2


def test_wrong_arguments_are_named() -> None:
    moments = ResidualMoments(2.0, 0.5, 11.0)
    with pytest.raises(ValueError, match=r"delta=0.0 was given"):
        variance_radius(0.0, 10, moments, 1.0)
    with pytest.raises(ValueError, match=r"num_tables=0 was given"):
        variance_radius(0.1, 0, moments, 1.0)
    with pytest.raises(ValueError, match=r"realised_mass=0.0 was given: pass finite numbers above 0"):
        variance_radius(0.1, 10, moments, 0.0)
    with pytest.raises(ValueError, match=r"epsilon=1e-12 needs more than 1e\+18 terms"):
        variance_tables(1e-12, 0.1, moments, 1.0)
    assert math.isfinite(variance_tables(1e-8, 0.1, moments, 1.0))


@pytest.mark.parametrize("wrong", [float("nan"), -1.0, 1e200])
def test_moments_that_are_none_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="fourth="):
        ResidualMoments(1.0, 1.0, wrong)
