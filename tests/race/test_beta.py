"""The best beta (R10): published values, limits, and what raising each parameter does."""

from __future__ import annotations

import math

import numpy as np
import pytest

from socket_theory.race.bounds.beta import mean_square_error, optimal_beta
from socket_theory.race.law import RaceKernel


@pytest.mark.parametrize(
    ("norm", "num_tables", "published"), [(1.0, 128, 3.3), (1.0, 2048, 6.7), (8.0, 128, 1.85), (8.0, 2048, 2.95)]
)
def test_the_best_beta_is_near_the_published_one_and_no_worse(norm: float, num_tables: int, published: float) -> None:
    best = optimal_beta(num_tables, 3, 1.2, norm)
    assert best == pytest.approx(published, rel=0.05)
    found, given = (mean_square_error(RaceKernel(3, beta), num_tables, 1.2, norm) for beta in (best, published))
    assert found <= given


def test_the_error_is_squared_bias_plus_variance_over_tables() -> None:
    kernel, at = RaceKernel(3, 2.0), (0.8, 1.3, 0.9)
    bias = float(kernel.mean(*at)) - (1 - 0.8 / math.pi) ** 3
    expected = bias**2 + float(kernel.variance(*at)) / 50
    assert mean_square_error(kernel, 50, *at) == pytest.approx(expected, rel=1e-12)
    same = mean_square_error(kernel, 50, 0.8, 1.3)
    assert same == mean_square_error(kernel, 50, 0.8, 1.3, 1.3)


@pytest.mark.parametrize(("theta", "norms"), [(0.4, (1.0, 3.0)), (2.2, (8.0, 8.0))])
def test_no_beta_of_a_fine_grid_is_better(theta: float, norms: tuple[float, float]) -> None:
    best = optimal_beta(300, 2, theta, *norms)
    grid = np.exp(np.linspace(math.log(0.05), math.log(50), 120))
    errors = [float(mean_square_error(RaceKernel(2, beta), 300, theta, *norms)) for beta in (best, *grid)]
    assert errors[0] <= min(errors[1:])


def test_more_tables_and_shorter_vectors_ask_for_a_larger_beta() -> None:
    by_tables = [optimal_beta(count, 3, 1.2, 2.0) for count in (8, 64, 512)]
    by_length = [optimal_beta(64, 3, 1.2, norm) for norm in (8.0, 2.0, 0.5)]
    assert by_tables == sorted(by_tables)
    assert by_length == sorted(by_length)


def test_the_ends_are_called_by_their_names() -> None:
    assert optimal_beta(64, 3, np.pi / 2, 1.0) == 0
    assert optimal_beta(64, 3, 0.0, 1.0) == math.inf


def test_several_pairs_are_weighed_against_each_other() -> None:
    pairs = np.array([0.6, 1.4])
    apart = [optimal_beta(64, 3, theta, 2.0) for theta in pairs]
    assert min(apart) <= optimal_beta(64, 3, pairs, 2.0) <= max(apart)
