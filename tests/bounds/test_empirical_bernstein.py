"""Empirical Bernstein (S9): its formula number by number, and the inputs that it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from socket_theory.bounds.ratio import empirical_bernstein_radius
from socket_theory.bounds.residual_range import residual_range, residual_range_of_any_target

WEIGHTS = 0.1, 0.3


@pytest.mark.parametrize(("count", "about_estimate"), [(400, True), (45, False)])
def test_radius_is_the_smaller_formula_summed_table_by_table(count: int, about_estimate: bool) -> None:
    """With many tables the range about the estimate is the shorter one; with few its denominator is too small."""
    rng, delta = np.random.default_rng(0), 0.07
    residuals, masses = rng.standard_normal((count, 3)), rng.gamma(4.0, size=count)
    values = rng.standard_normal((30, 3))
    square = sum(float(x) ** 2 for row in residuals for x in row) / count
    zeta = math.sqrt(sum(float(z) ** 2 for z in masses) / count)
    c = math.sqrt(2 * math.log(4 / delta) / count)
    share = c * math.sqrt(2 * math.log(2 / delta) / count) + 2 * math.log(4 / delta) / (3 * count)
    room = float(masses.mean()) - zeta * c
    anywhere = residual_range_of_any_target(WEIGHTS, values)
    expected = [
        (math.sqrt(square) * c + anywhere * share) / room,
        (math.sqrt(square) * c + residual_range(WEIGHTS, values) * share) / (room - 30 * 0.3 * share),
    ]
    got = empirical_bernstein_radius(delta, residuals, masses, WEIGHTS, values)
    np.testing.assert_allclose(got, expected[about_estimate], rtol=1e-13)
    assert expected[about_estimate] < expected[not about_estimate]


@pytest.mark.parametrize(
    ("residuals", "masses", "sentence"),
    [
        (np.full((5, 2), np.nan), np.ones(5), "residuals contains NaN or infinity: pass finite numbers"),
        (np.ones((4, 2)), np.ones(5), r"residuals has shape \(4, 2\): pass \[5, E\]"),
        (np.ones(5), np.ones(5), r"residuals has shape \(5,\): pass \[5, E\]"),
        (np.ones((5, 2)), np.full(5, np.nan), "masses=.*was given: pass finite numbers of at least 0"),
        (np.ones((5, 2)), np.ones((5, 1)), r"masses has shape \(5, 1\): pass \[L\]"),
        (np.ones((0, 2)), np.ones(0), r"masses has shape \(0,\): pass \[L\]"),
    ],
)
def test_wrong_tables_are_named(residuals: np.ndarray, masses: np.ndarray, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        empirical_bernstein_radius(0.1, residuals, masses, WEIGHTS, np.ones((3, 2)))


@pytest.mark.parametrize(
    ("weights", "values", "sentence"),
    [
        ((0.5, 0.2), np.ones((3, 2)), r"weight_range=\(0.5, 0.2\) was given: pass \(low, high\) with low <= high"),
        ((-0.5, 0.2), np.ones((3, 2)), "weight_range=.*pass finite numbers of at least 0"),
        (WEIGHTS, np.ones(3), r"has shape \(3,\): pass \[rows, E\]"),
        (WEIGHTS, np.ones((0, 2)), "the number of rows of .*=0 was given"),
    ],
)
def test_wrong_ranges_and_values_are_named(weights: tuple[float, float], values: np.ndarray, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        empirical_bernstein_radius(0.1, np.ones((5, 2)), np.ones(5), weights, values)
