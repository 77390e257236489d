"""Hoeffding and Bernstein for means (S8): against exact binomial tails, their inverses, and their limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binom

from socket_theory.bounds.concentration import (
    bernstein_count,
    bernstein_failure,
    bernstein_radius,
    hoeffding_count,
    hoeffding_failure,
    hoeffding_radius,
    two_point_count,
    two_point_failure,
    two_point_radius,
    two_point_tail,
    two_point_terms,
)
from socket_theory.socket_lsh.bounds.weight_range import collision_half_range, collision_reach
from socket_theory.socket_lsh.law import SoftKernel

DELTAS = st.floats(1e-12, 0.999)
COUNTS = st.integers(1, 10**6)
SIZES = st.floats(-6, 6).map(lambda x: 10.0**x)


@pytest.mark.parametrize("probability", [0.01, 0.2, 0.5])
@pytest.mark.parametrize("count", [10, 400])
def test_all_failures_cover_the_exact_binomial_tail(probability: float, count: int) -> None:
    deviation = np.arange(1, 60) / 100
    above = binom.sf(np.ceil(count * (probability + deviation) - 1e-9) - 1, count, probability)
    exact = above + binom.cdf(np.floor(count * (probability - deviation) + 1e-9), count, probability)
    variance = probability * (1 - probability)
    assert (hoeffding_failure(deviation, count, 0.5) >= exact).all()
    reaches = 1 - probability, probability
    assert (bernstein_failure(deviation, count, variance, max(reaches)) >= exact).all()
    assert (two_point_failure(deviation, count, variance, *reaches) >= exact * (1 - 1e-9)).all()
    assert (two_point_tail(deviation, count, variance, 1 - probability) >= above * (1 - 1e-9)).all()


@given(DELTAS, COUNTS, SIZES, SIZES)
def test_radius_is_where_the_failure_is_delta(delta: float, count: int, radius: float, variance: float) -> None:
    np.testing.assert_allclose(hoeffding_failure(hoeffding_radius(delta, count, radius), count, radius), delta)
    edge = bernstein_radius(delta, count, variance, radius)
    np.testing.assert_allclose(bernstein_failure(edge, count, variance, radius), delta, rtol=1e-6)


LAWS = st.tuples(SIZES, SIZES, SIZES).map(lambda s: (s[0] * s[1] * min(1.0, s[2]), s[0], s[1]))  # v <= above * below


@given(DELTAS, COUNTS, LAWS)
def test_the_two_point_form_is_at_most_bernsteins_and_hoeffdings(
    delta: float, count: int, law: tuple[float, float, float]
) -> None:
    variance, above, below = law
    radius = two_point_radius(delta, count, *law)
    assert radius <= bernstein_radius(delta, count, variance, max(above, below)) * (1 + 1e-9)
    assert radius <= hoeffding_radius(delta, count, (above + below) / 2) * (1 + 1e-9)
    assert radius <= max(above, below)


@given(DELTAS, COUNTS, LAWS)
def test_the_two_point_radius_is_where_its_failure_crosses_delta(
    delta: float, count: int, law: tuple[float, float, float]
) -> None:
    radius = float(two_point_radius(delta, count, *law))
    assert two_point_failure(radius * (1 + 1e-9), count, *law) <= delta * (1 + 1e-6)
    assert two_point_failure(radius * (1 - 1e-9), count, *law) >= delta * (1 - 1e-6) or radius == max(law[1:])
    tables = two_point_count(radius, delta, *law)
    assert tables <= count
    assert two_point_radius(delta, tables, *law) <= radius * (1 + 1e-9)


def test_two_point_bounds_of_terms_without_spread_and_beyond_their_reach() -> None:
    np.testing.assert_array_equal(two_point_tail([0.5, 2.0], 3, [0.0, 1.0], 1.0), 0.0)
    assert two_point_failure(0.1, 3, 0.0, 1.0, 1.0) == 0
    assert two_point_radius(0.1, 3, 0.0, 1.0, 1.0) == 0
    assert two_point_radius(0.1, 3, 1.0, 0.0, 0.0) == 0
    assert two_point_radius(0.1, 1, 1.0, 1.0, 1.0) == 1  # a fair sign
    assert two_point_terms(1.0, 0.1, 1.0, 1.0, 1.0) == 0
    assert two_point_terms(1e-200, 0.1, 1.0, 1.0, 1.0) == np.inf
    assert two_point_count(1.0, 0.1, 1.0, 1.0, 1.0) == 1


def test_a_variance_that_the_ends_do_not_allow_is_lowered() -> None:
    assert two_point_radius(0.1, 20, 5.0, 0.5, 0.2) == two_point_radius(0.1, 20, 0.1, 0.5, 0.2)


def test_two_point_bounds_broadcast() -> None:
    above, below = np.array([0.5, 1.0, 2.0]), np.array([[0.5], [1.0]])
    radii = two_point_radius(0.05, 60, 0.01, above, below)
    assert radii.shape == (2, 3)
    np.testing.assert_allclose(two_point_failure(radii, 60, 0.01, above, below), 0.05)


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("theta", "bernstein", "two_point"),
    [(0.3, 1.66, 1.51), (0.8, 1.65, 1.52), (1.2, 1.85, 1.60), (np.pi / 2, 2.24, 1.75)],
)
def test_the_radii_of_one_weight_are_near_the_truth_as_deployed(
    theta: float, bernstein: float, two_point: float
) -> None:
    """P = 10, L = 60, tau = .4, head_dim = 128: within 2 times the quantile, where a range of 1 is 100-230 times off.

    A weight sees of each plane its product with the query and, independent of it, with the rest of the key.
    """
    kernel, tables, norm, delta = SoftKernel(10, 0.4, "tanh_scaled", 128), 60, 11.0, 0.05
    mean, variance = float(kernel.mean(theta, norm)), float(kernel.variance(theta, norm))
    rng, errors = np.random.default_rng(11), []
    for _ in range(20):
        along, rest = rng.standard_normal((2, 1000 * tables, 10), dtype=np.float32)
        signs = np.sign(np.cos(theta) * along + np.sin(theta) * rest)
        weights = expit(2 * np.tanh(norm * along) * signs / (128**0.5 * 0.4)).prod(axis=1, dtype=np.float64)
        errors.append(np.abs(weights.reshape(1000, tables).mean(axis=1) - mean))
    quantile = np.quantile(errors, 1 - delta)
    reach = collision_reach(kernel, theta, norm)
    old = bernstein_radius(delta, tables, variance, 1.0)
    assert 100 < old / quantile < 235
    assert bernstein_radius(delta, tables, variance, max(map(float, reach))) / quantile == pytest.approx(
        bernstein, rel=0.03
    )
    assert two_point_radius(delta, tables, variance, *reach) / quantile == pytest.approx(two_point, rel=0.03)
    assert two_point_radius(delta, tables, variance, *reach) <= 2 * quantile


def test_reaches_of_a_weight_keep_their_digits_where_its_ends_nearly_agree() -> None:
    """At a large tau a weight is 2^-P (1 + sum_p h_p s_p/tau) and its ends are P/tau of 2^-P away."""
    above, below = collision_reach(SoftKernel(4, 1e9, "tanh", 8), np.array([0.5, 2.0]), 1e9)
    share = 1 - 2 * np.array([0.5, 2.0]) / np.pi  # E s sign(h)
    np.testing.assert_allclose(above, 2.0**-4 * 4e-9 * (1 - share), rtol=1e-6)
    np.testing.assert_allclose(below, 2.0**-4 * 4e-9 * (1 + share), rtol=1e-6)


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
        (lambda: two_point_tail(0.0, 10, 1.0, 1.0), "deviation=0.0 was given: pass finite numbers above 0"),
        (lambda: two_point_failure(0.1, 10, 1.0, -1.0, 1.0), "above=-1.0 was given: pass finite numbers of at least 0"),
        (lambda: two_point_radius(0.1, 10, 1.0, 1.0, np.inf), "below=inf was given"),
        (lambda: two_point_radius(0.1, 10, -1.0, 1.0, 1.0), "variance=-1.0 was given"),
        (lambda: two_point_count(1e-200, 0.1, 1.0, 1.0, 1.0), "deviation=1e-200 needs"),
        (lambda: two_point_terms(0.1, 1.5, 1.0, 1.0, 1.0), "delta=1.5 was given"),
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
