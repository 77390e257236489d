"""Hoeffding and Bernstein for means (S8): against exact binomial tails, their inverses, and their limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from socket_theory.bounds.concentration import (
    bernstein_count,
    bernstein_failure,
    bernstein_radius,
    hoeffding_count,
    hoeffding_failure,
    hoeffding_radius,
)
from socket_theory.socket_lsh.bounds.weight_range import collision_half_range
from socket_theory.socket_lsh.law import SoftKernel

DELTAS = st.floats(1e-12, 0.999)
COUNTS = st.integers(1, 10**6)
SIZES = st.floats(-6, 6).map(lambda x: 10.0**x)


@pytest.mark.parametrize("probability", [0.01, 0.2, 0.5])
@pytest.mark.parametrize("count", [10, 400])
def test_both_failures_cover_the_exact_binomial_tail(probability: float, count: int) -> None:
    deviation = np.arange(1, 60) / 100
    above = binom.sf(np.ceil(count * (probability + deviation) - 1e-9) - 1, count, probability)
    exact = above + binom.cdf(np.floor(count * (probability - deviation) + 1e-9), count, probability)
    variance = probability * (1 - probability)
    assert (hoeffding_failure(deviation, count, 0.5) >= exact).all()
    assert (bernstein_failure(deviation, count, variance, 1.0) >= exact).all()


@given(DELTAS, COUNTS, SIZES, SIZES)
def test_radius_is_where_the_failure_is_delta(delta: float, count: int, radius: float, variance: float) -> None:
    np.testing.assert_allclose(hoeffding_failure(hoeffding_radius(delta, count, radius), count, radius), delta)
    edge = bernstein_radius(delta, count, variance, radius)
    np.testing.assert_allclose(bernstein_failure(edge, count, variance, radius), delta, rtol=1e-6)


@given(DELTAS, COUNTS, SIZES, SIZES)
def test_count_inverts_the_radius(delta: float, count: int, radius: float, variance: float) -> None:
    assert hoeffding_count(float(hoeffding_radius(delta, count, radius)), delta, radius) == count
    assert bernstein_count(float(bernstein_radius(delta, count, variance, radius)), delta, variance, radius) == count


def test_bernstein_wins_exactly_where_the_variance_is_small() -> None:
    assert bernstein_radius(0.05, 10_000, 1e-4, 1.0) < 0.1 * hoeffding_radius(0.05, 10_000, 1.0)
    assert bernstein_radius(0.05, 10_000, 1.0, 1.0) > hoeffding_radius(0.05, 10_000, 1.0)


def test_failure_never_exceeds_one_and_broadcasts() -> None:
    failure = hoeffding_failure(np.array([[0.0], [0.5]]), 20, np.array([0.1, 1.0, 10.0]))
    assert failure.shape == (2, 3)
    np.testing.assert_array_equal(failure[0], 1.0)
    assert bernstein_failure(1e-9, 1, 1.0, 1.0) == 1.0


def test_half_range_of_a_collision_shrinks_as_the_temperature_grows() -> None:
    widths = [collision_half_range(SoftKernel(3, temperature, "tanh", 64)) for temperature in (0.01, 0.4, 3.0, 100.0)]
    assert widths[0] == pytest.approx(0.5)
    assert (np.diff(widths) < 0).all()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: hoeffding_radius(1.0, 10, 1.0), "delta=1.0 was given: pass a failure probability strictly between"),
        (lambda: hoeffding_radius(0.0, 10, 1.0), "delta=0.0 was given"),
        (lambda: bernstein_radius(0.1, 0, 1.0, 1.0), "count=0 was given: pass an integer of at least 1"),
        (lambda: bernstein_radius(0.1, 10, -1.0, 1.0), "variance=-1.0 was given: pass finite numbers of at least 0"),
        (lambda: hoeffding_count(0.0, 0.1, 1.0), "deviation=0.0 was given: pass finite numbers above 0"),
        (lambda: hoeffding_failure(0.1, 10, np.inf), "radius=inf was given"),
        (lambda: hoeffding_count(1e-200, 0.1, 1.0), r"deviation=1e-200 needs more than 1e\+18 terms"),
        (lambda: bernstein_count(1e-200, 0.1, 1.0, 1.0), "deviation=1e-200 needs"),
        (lambda: hoeffding_count([0.1, 0.2], 0.1, 1.0), r"deviation has shape \(2,\): pass a single number"),  # type: ignore[arg-type]
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize("given", ["0.1", None, [[1.0], [1.0, 2.0]], 1j])
def test_what_is_not_a_number_is_named(given: Any) -> None:
    with pytest.raises(TypeError, match=r"delta=.* was given: pass a real number"):
        hoeffding_radius(given, 10, 1.0)
    with pytest.raises(TypeError, match=r"radius=.* was given: pass a real number"):
        hoeffding_radius(0.1, 10, given)
