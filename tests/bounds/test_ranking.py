"""Misranking (S14) and captured mass (S13): exact two-table cases, inverses, order of the bounds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from socket_theory.bounds.ranking import (
    misrank_bernstein,
    misrank_bernstein_tables,
    misrank_hoeffding,
    misrank_hoeffding_range,
    misrank_hoeffding_range_tables,
    misrank_tables,
)
from socket_theory.bounds.top_k import captured_mass_for_error, top_k_error_bound


@pytest.mark.parametrize(("near", "far"), [(0.3, 0.2), (0.9, 0.1), (0.02, 0.001)])
@pytest.mark.parametrize("num_tables", [1, 20, 200])
def test_misrank_bounds_cover_independent_hard_collisions(near: float, far: float, num_tables: int) -> None:
    counts = np.arange(num_tables + 1)
    exact = float(binom.pmf(counts, num_tables, near) @ binom.sf(counts - 1, num_tables, far))
    variance = near * (1 - near) + far * (1 - far)
    assert exact <= misrank_hoeffding(near - far, num_tables)
    assert exact <= misrank_bernstein(near - far, num_tables, variance, 1.0)


def test_a_narrow_range_of_weights_sharpens_the_bound() -> None:
    assert misrank_hoeffding_range(0.05, 100, 1.0) == misrank_hoeffding(0.05, 100)
    assert misrank_hoeffding_range(0.05, 100, 0.1) < 1e-5 < misrank_hoeffding(0.05, 100)


@pytest.mark.parametrize("gap", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("failure", [0.3, 0.01, 1e-9])
def test_misrank_tables_is_the_smallest_that_keeps_the_failure(gap: float, failure: float) -> None:
    tables = misrank_tables(gap, failure)
    assert misrank_hoeffding(gap, tables) <= failure * (1 + 1e-9)
    assert tables == 1 or misrank_hoeffding(gap, tables - 1) > failure


@pytest.mark.parametrize("gap", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("failure", [0.3, 0.01, 1e-9])
@pytest.mark.parametrize("spread", [0.02, 0.7])
def test_sharper_tables_are_the_smallest_that_keep_the_failure(gap: float, failure: float, spread: float) -> None:
    forms: list[tuple[int, Callable[[int], Any]]] = [
        (misrank_hoeffding_range_tables(gap, failure, spread), lambda n: misrank_hoeffding_range(gap, n, spread)),
        (misrank_bernstein_tables(gap, failure, spread, 0.1), lambda n: misrank_bernstein(gap, n, spread, 0.1)),
    ]
    for tables, form in forms:
        assert form(tables) <= failure * (1 + 1e-9)
        assert tables == 1 or form(tables - 1) > failure
    assert misrank_hoeffding_range_tables(gap, failure, 1.0) == misrank_tables(gap, failure)


def test_captured_mass_bounds_what_top_k_drops() -> None:
    rng = np.random.default_rng(2)
    values, weights = rng.standard_normal((12, 3)), rng.dirichlet(np.ones(12))
    diameter = max(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(values, 2))
    exact = weights @ values
    for kept in range(1, 12):
        mass = weights[:kept].sum()
        error = np.linalg.norm(weights[:kept] @ values[:kept] / mass - exact)
        assert error <= top_k_error_bound(mass, diameter)
        np.testing.assert_allclose(captured_mass_for_error(top_k_error_bound(mass, diameter), diameter), mass)
    assert captured_mass_for_error(100.0, diameter) == 0
    assert top_k_error_bound(1 + 1e-12, diameter) == 0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: misrank_hoeffding(0.0, 10), "gap=0.0 was given: pass finite numbers above 0"),
        (lambda: misrank_tables(0.1, 0.0), "failure=0.0 was given"),
        (lambda: misrank_tables(1e-200, 0.1), r"gap=1e-200 needs more than 1e\+18 terms"),
        (lambda: misrank_hoeffding_range_tables(1e-200, 0.1, 1.0), "gap=1e-200 needs"),
        (lambda: misrank_bernstein_tables(1e-200, 0.1, 1.0, 1.0), "gap=1e-200 needs"),
        (lambda: misrank_bernstein_tables(0.1, 0.1, -1.0, 1.0), "difference_variance=-1.0 was given"),
        (lambda: misrank_bernstein(0.1, 10, 1.0, 0.0), "weight_span=0.0 was given: pass finite numbers above 0"),
        (lambda: top_k_error_bound(1.5, 1.0), "captured_mass=1.5 was given: pass softmax mass"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
