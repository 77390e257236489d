"""Spare sets of tables (S9): the rank that bounds an error, and what it is read from."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from socket_theory.bounds.spare_sets import spare_set_errors, spare_set_radius, spare_sets_needed


@pytest.mark.parametrize(("delta", "sets"), [(0.05, 19), (0.1, 9), (0.01, 99), (0.25, 3), (0.3, 3), (0.5, 1), (0.9, 1)])
def test_the_fewest_sets_make_the_radius_finite(delta: float, sets: int) -> None:
    assert spare_sets_needed(delta) == sets
    assert spare_set_radius(delta, np.arange(1.0, sets + 1)) < math.inf
    assert spare_set_radius(delta, np.arange(1.0, sets)) == math.inf


def test_no_sets_bound_nothing() -> None:
    assert spare_set_radius(0.05, np.empty(0)) == math.inf


@pytest.mark.parametrize("delta", [0.2, 0.25, 0.4, 0.5, 0.8])
@pytest.mark.parametrize("errors", [(1.0, 2.0, 3.0, 4.0, 5.0), (1.0, 1.0, 2.0, 2.0, 2.0), (0.0, 0.0, 0.0, 0.0, 7.0)])
def test_each_order_of_the_errors_counts_once(delta: float, errors: tuple[float, ...]) -> None:
    """Over all orders the last exceeds the radius of the others with probability floor(5 delta)/5, less with ties."""
    misses = [order[-1] > spare_set_radius(delta, np.array(order[:-1])) for order in itertools.permutations(errors)]
    promised = math.floor(5 * Fraction(delta)) / 5
    assert np.mean(misses) <= promised + 1e-12
    if len(set(errors)) == len(errors):
        assert np.mean(misses) == pytest.approx(promised)


def test_the_error_of_a_set_is_that_of_its_mean() -> None:
    residuals = np.array([[3.0, 0.0], [3.0, 8.0], [0.0, 2.0], [0.0, 0.0], [9.0, 9.0]])
    masses = np.array([1.0, 3.0, 4.0, 1.0, 1.0])
    np.testing.assert_allclose(spare_set_errors(residuals, masses, 2), [5.0 / 2.0, 1.0 / 2.5])
    np.testing.assert_allclose(spare_set_errors(residuals, masses, 5), [math.hypot(3.0, 3.8) / 2.0])


def test_wrong_arguments_are_named() -> None:
    rows = np.ones((3, 2))
    with pytest.raises(ValueError, match=r"delta=1.0 was given"):
        spare_sets_needed(1.0)
    with pytest.raises(ValueError, match=r"errors has shape \(3, 2\): pass \[K\]"):
        spare_set_radius(0.1, rows)
    with pytest.raises(ValueError, match=r"errors=.* was given: pass finite numbers of at least 0"):
        spare_set_radius(0.1, np.array([-1.0]))
    with pytest.raises(ValueError, match=r"masses has shape \(2,\): pass \[3\]"):
        spare_set_errors(rows, np.ones(2), 1)
    with pytest.raises(ValueError, match=r"masses=.* was given: pass finite numbers above 0"):
        spare_set_errors(rows, np.zeros(3), 1)
    with pytest.raises(ValueError, match="3 spare tables were given: pass at least num_tables=4 of them"):
        spare_set_errors(rows, np.ones(3), 4)
    with pytest.raises(ValueError, match=r"residuals has shape \(3,\)"):
        spare_set_errors(np.ones(3), np.ones(3), 1)
