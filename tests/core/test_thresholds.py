"""Thresholds: exact against SciPy's laws, honest at any sample size, and mergeable."""

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="pip install 'socket-theory[test]'")
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from socket_theory.core.rng import Key
from socket_theory.core.thresholds import (
    Moments,
    bennett_radius,
    binomial_mean,
    bounded_mean,
    critical_count,
    failure_rate,
    tightness,
    trials_to_reject,
)


@given(probability=st.floats(0, 1), trials=st.integers(1, 10**6), level=st.floats(-9, -0.4).map(lambda x: float(10**x)))
def test_critical_count_is_the_smallest_within_the_level(probability: float, trials: int, level: float) -> None:
    limit = critical_count(probability, trials, level)
    tail = scipy_stats.binom(trials, probability).sf
    assert tail(limit) <= level * (1 + 1e-6)
    assert limit == 0 or tail(limit - 1) > level * (1 - 1e-6)


def test_failure_rate_accepts_the_promised_rate_and_rejects_a_higher_one() -> None:
    trials = trials_to_reject(0.05, 0.2, level=1e-8)
    assert failure_rate(round(0.05 * trials), trials, 0.05, 1e-8).holds
    assert failure_rate(round(0.2 * trials), trials, 0.05, 1e-8).rejects


@given(null=st.floats(0, 0.5), gap=st.floats(0.05, 0.5))
def test_trials_to_reject_misses_as_rarely_as_asked(null: float, gap: float) -> None:
    trials = trials_to_reject(null, null + gap, level=1e-8, miss=1e-6)
    limit = critical_count(null, trials, 1e-8)
    assert scipy_stats.binom(trials, null + gap).cdf(limit) <= 1e-6 * (1 + 1e-6)


def test_trials_to_reject_refuses_an_alternative_that_is_none() -> None:
    with pytest.raises(ValueError, match="pass 0 <= null < alternative <= 1"):
        trials_to_reject(0.2, 0.2, 1e-8)


@pytest.mark.parametrize("probability", [0.0, 1e-3, 0.3, 0.97, 1.0])
def test_binomial_mean_accepts_the_law_and_rejects_another(probability: float) -> None:
    trials = 20_000
    count = round(probability * trials)
    assert binomial_mean(count, trials, probability, 1e-8).holds
    assert binomial_mean(count, trials, abs(probability - 0.05), 1e-8).rejects


def test_binomial_mean_is_two_sided_and_reports_the_worst_entry() -> None:
    law = scipy_stats.binom(1000, 0.3)
    first, last = law.ppf(2.5e-9), law.isf(2.5e-9)
    for count in (first - 1, last + 1):
        assert binomial_mean([300, count], 1000, 0.3, 1e-8).rejects
    for count in (first + 1, last - 1):
        assert binomial_mean([300, count], 1000, 0.3, 1e-8).holds


@given(
    variance=st.floats(1e-4, 0.25),
    bound=st.floats(0.5, 1.0),
    count=st.integers(1, 10**9),
    level=st.floats(1e-10, 0.1),
)
def test_bennett_radius_solves_its_own_equation(variance: float, bound: float, count: int, level: float) -> None:
    u = bound * float(bennett_radius(variance, bound, count, level)) / variance
    exponent = count * variance / bound**2 * ((1 + u) * np.log1p(u) - u)
    assert exponent == pytest.approx(np.log(2 / level), rel=1e-4)


def test_bennett_radius_covers_the_exact_binomial_tail() -> None:
    for probability, count, level in [(0.5, 100, 1e-6), (0.01, 1000, 1e-8), (0.001, 50, 1e-8), (0.3, 10**6, 1e-3)]:
        bound = max(probability, 1 - probability)
        radius = float(bennett_radius(probability * (1 - probability), bound, count, level))
        law = scipy_stats.binom(count, probability)
        above = law.sf(np.ceil(count * (probability + radius)) - 1)
        below = law.cdf(np.floor(count * (probability - radius)))
        assert above + below <= level


def test_bennett_radius_is_within_a_tenth_of_the_gaussian_one_for_many_samples() -> None:
    radius = float(bennett_radius(0.1, 1.0, 10**8, 1e-8))
    assert 1 < radius / np.sqrt(2 * 0.1 * np.log(2e8) / 1e8) < 1.1


def test_bounded_mean_accepts_the_mean_and_rejects_a_shifted_one() -> None:
    samples = Key.from_seed(1).generator().uniform(size=(20_000, 3))
    moments = Moments.of(samples)
    assert bounded_mean(moments, 0.5, 1 / 12, 0.5, 1e-8).holds
    assert bounded_mean(moments, [0.5, 0.5, 0.52], 1 / 12, 0.5, 1e-8).rejects


@given(first=st.integers(1, 50), second=st.integers(1, 50), offset=st.floats(-1e6, 1e6))
def test_moments_of_batches_merge_to_those_of_the_whole(first: int, second: int, offset: float) -> None:
    samples = offset + Key.from_seed(2).generator().standard_normal((first + second, 2))
    merged, whole = Moments.of(samples[:first]) + Moments.of(samples[first:]), Moments.of(samples)
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(merged.squares, whole.squares, rtol=1e-6)
    np.testing.assert_allclose(whole.variance, samples.var(axis=0, ddof=1), rtol=1e-6)


def test_tightness_is_bound_over_quantile() -> None:
    errors = np.linspace(0, 1, 1001)
    assert tightness(3.0, errors, 0.05) == pytest.approx(3 / 0.95)
    assert tightness(3 * np.ones(1001), errors, 0.05) == pytest.approx(3 / 0.95)
    assert tightness(3.0, np.zeros(5), 0.05) == np.inf
