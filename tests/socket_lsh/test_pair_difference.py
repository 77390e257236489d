"""The law of w_a - w_b behind the misranking bounds (S14): exact coins, drawn tables, and the deployed kernel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from socket_theory.bounds.ranking import misrank_bernstein, misrank_bernstein_tables
from socket_theory.core import quadrature
from socket_theory.core.hashing import QUERY_MAPS, QueryMap
from socket_theory.socket_lsh.bounds.pair_difference import pair_difference
from socket_theory.socket_lsh.law import SoftKernel

DEPLOYED, NORM = SoftKernel(10, 0.4, "tanh_scaled", 128), 11.0
COIN = SoftKernel(1, 1e-6, "tanh", 3)


def apart(theta_a: float, theta_b: float, correlation: float = 0.0) -> float:
    along, across = math.cos(theta_a) * math.cos(theta_b), math.sin(theta_a) * math.sin(theta_b)
    return math.acos(max(-1.0, min(1.0, along + correlation * across)))


def test_opposite_coins_have_the_law_worked_out_by_hand() -> None:
    """One plane never puts k and -k on one side: w_a - w_b is 1 with probability 5/8, else -1."""
    near = 3 * math.pi / 8
    law = pair_difference(COIN, near, math.pi - near, math.pi, 6.0)
    assert law.rate == pytest.approx(-math.log(2 * math.sqrt(0.625 * 0.375)), rel=1e-4)
    assert law.steepness == pytest.approx(math.log(0.625 / 0.375) / 2, rel=1e-4)
    assert law.asymmetry == pytest.approx(1.0, rel=1e-4)
    for tables in (2, 20, 100, 400):
        exact = binom.cdf(tables // 2, tables, 0.625)
        assert exact <= law.bahadur_rao(tables) <= law.chernoff(tables)
    assert law.bahadur_rao(100) <= 1.5 * binom.cdf(50, 100, 0.625)


def test_ignoring_the_covariance_of_the_weights_would_break_the_bound() -> None:
    near = 3 * math.pi / 8
    wrong = pair_difference(COIN, near, math.pi - near, apart(near, math.pi - near), 6.0)
    assert wrong.chernoff(100) < binom.cdf(50, 100, 0.625)


@pytest.mark.parametrize("query_map", QUERY_MAPS)
@pytest.mark.parametrize("num_planes", [1, 3, 10])
@pytest.mark.parametrize(("theta_a", "theta_b", "correlation"), [(0.3, 0.8, 0.0), (1.2, 1.5, 0.9), (1.4, 2.0, -0.5)])
def test_bounds_come_in_order_and_hold_the_moments_of_the_law(
    query_map: QueryMap, num_planes: int, theta_a: float, theta_b: float, correlation: float
) -> None:
    kernel, between = SoftKernel(num_planes, 0.7, query_map, 16), apart(theta_a, theta_b, correlation)
    law = pair_difference(kernel, theta_a, theta_b, between, 4.0)
    gap = float(kernel.mean_difference(theta_a, theta_b, 4.0))
    variance = float(kernel.difference_variance(theta_a, theta_b, between, 4.0))
    low, high = kernel.weight_range()
    for tables in (3, 30, 300):
        bernstein = float(misrank_bernstein(gap, tables, variance, high - low))
        assert law.bahadur_rao(tables) <= law.chernoff(tables) <= bernstein * (1 + 1e-6)
        assert law.saddlepoint(tables) <= law.bahadur_rao(tables)
    for failure in (0.2, 1e-6):
        tables = law.bahadur_rao_tables(failure)
        assert law.bahadur_rao(tables) <= failure
        assert tables == 1 or law.bahadur_rao(tables - 1) > failure
        assert tables <= law.chernoff_tables(failure)


def test_powers_of_two_bits_are_their_moments() -> None:
    theta_a, theta_b, between = 1.2, 1.5, apart(1.2, 1.5, 0.4)
    found = DEPLOYED.bit.pair_powers(theta_a, theta_b, between, NORM, 3, 1.0)
    assert found[0, 0] == pytest.approx(1, rel=1e-14)
    assert found[1, 0] == pytest.approx(float(DEPLOYED.bit_mean(theta_a, NORM)), rel=1e-13)
    assert found[0, 2] == pytest.approx(float(DEPLOYED.bit_second_moment(theta_b, NORM)), rel=1e-13)
    assert found[1, 1] == pytest.approx(float(DEPLOYED.bit_pair_moment(theta_a, theta_b, between, NORM)), rel=1e-13)


@pytest.mark.parametrize("query_map", QUERY_MAPS)
@pytest.mark.parametrize("temperature", [0.01, 0.4, 3.0])
def test_high_powers_of_bits_do_not_move_with_a_finer_quadrature(
    monkeypatch: pytest.MonkeyPatch, query_map: QueryMap, temperature: float
) -> None:
    kernel = SoftKernel(1, temperature, query_map, 64)
    asked = 0.8, 1.3, apart(0.8, 1.3, 0.6), 6.0, 132, kernel.weight_range()[1]
    coarse = kernel.bit.pair_powers(*asked)
    monkeypatch.setattr(quadrature, "_STEP", 1 / 16)
    np.testing.assert_allclose(coarse, kernel.bit.pair_powers(*asked), atol=1e-12)


def drawn_sums(theta_a: float, theta_b: float, tables: list[int], trials: int) -> list[NDArray[np.float64]]:
    """Sums of w_a - w_b over the first tables of each trial, for orthogonal residuals."""
    rng, total, sums = np.random.default_rng(5), np.zeros(trials), []
    for table in range(1, max(tables) + 1):
        g, a, b = rng.standard_normal((3, trials, DEPLOYED.num_planes), dtype=np.float32)
        slope = np.tanh(np.tanh(NORM * g) / math.sqrt(DEPLOYED.head_dim) / DEPLOYED.temperature)
        weights = [
            ((1 + slope * np.sign(math.cos(t) * g + math.sin(t) * other)) / 2).prod(axis=1)
            for t, other in ((theta_a, a), (theta_b, b))
        ]
        total += weights[0] - weights[1]
        if table in tables:
            sums.append(total.copy())
    return sums


@pytest.mark.statistical
@pytest.mark.parametrize("theta", [0.3, 0.8, 1.2, math.pi / 2])
def test_at_the_deployed_kernel_the_bound_asks_for_at_most_twice_the_tables_of_one_percent(theta: float) -> None:
    far = theta + 0.3
    law = pair_difference(DEPLOYED, theta, far, apart(theta, far), NORM)
    enough = law.bahadur_rao_tables(0.01)
    half, whole = drawn_sums(theta, far, [enough // 2, enough], 20_000)
    assert np.mean(whole <= 0) <= 0.01
    assert np.mean(half <= 0) > 0.01
    assert law.saddlepoint(enough) == pytest.approx(np.mean(whole <= 0), rel=0.5)
    gap = float(DEPLOYED.mean_difference(theta, far, NORM))
    variance = float(DEPLOYED.difference_variance(theta, far, apart(theta, far), NORM))
    low, high = DEPLOYED.weight_range()
    assert enough < misrank_bernstein_tables(gap, 0.01, variance, high - low)
    assert 20 * enough < misrank_bernstein_tables(gap, 0.01, variance, 1.0)  # the range taken for 1


def test_wrong_pairs_are_named() -> None:
    with pytest.raises(ValueError, match=r"theta_a=1.2 is not below theta_b=1.2: pass the nearer key first"):
        pair_difference(DEPLOYED, 1.2, 1.2, 0.5, NORM)
    with pytest.raises(ValueError, match="not the angles of three vectors"):
        pair_difference(DEPLOYED, 0.2, 1.2, 0.5, NORM)
    with pytest.raises(ValueError, match="no number of tables is known to suffice, pass keys further apart"):
        pair_difference(DEPLOYED, 1.2, 1.2 + 1e-9, 0.5, NORM).chernoff_tables(0.1)
