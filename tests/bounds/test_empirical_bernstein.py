"""Empirical Bernstein (S9): its formula number by number, and the inputs that it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from socket_theory.bounds.ratio import empirical_bernstein_radius


def test_radius_is_the_formula_summed_table_by_table() -> None:
    rng, count, delta, bound, diameter = np.random.default_rng(0), 400, 0.07, 1.3, 2.1
    residuals, masses = rng.standard_normal((count, 3)), rng.gamma(4.0, size=count)
    radius = bound * diameter
    square = sum(float(x) ** 2 for row in residuals for x in row) / count
    zeta = math.sqrt(sum(float(z) ** 2 for z in masses) / count)
    c = math.sqrt(2 * math.log(4 / delta) / count)
    unknown_centre = radius * math.sqrt(2 * math.log(2 / delta) / count)
    linear = 2 * radius * math.log(4 / delta) / (3 * count)
    expected = ((math.sqrt(square) + unknown_centre) * c + linear) / (float(masses.mean()) - zeta * c)
    got = empirical_bernstein_radius(delta, residuals, masses, bound, diameter)
    np.testing.assert_allclose(got, expected, rtol=1e-13)


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
        empirical_bernstein_radius(0.1, residuals, masses, 1.0, 1.0)
