"""Sampling radii (S10) and the end-to-end decomposition (S12)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_theory.bounds.end_to_end import ErrorTerms, end_to_end
from socket_theory.bounds.importance import plain_spread, value_aware_spread
from socket_theory.bounds.ratio import chebyshev_radius, hoeffding_ratio_radius


def instance(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.gamma(0.5, size=20), rng.standard_normal((20, 4)) * rng.lognormal(0, 1.5, size=(20, 1))


@given(st.integers(0, 10**6))
def test_value_aware_law_has_its_closed_variance_and_never_more_than_plain(seed: int) -> None:
    weights, values = instance(seed)
    plain, aware = plain_spread(weights, values), value_aware_spread(weights, values)
    output = weights @ values / weights.sum()
    scale = weights @ np.linalg.norm(values, axis=1) / weights.sum()
    np.testing.assert_allclose(aware.variance, scale**2 - output @ output, rtol=1e-9)
    np.testing.assert_allclose(plain.variance, weights @ (values**2).sum(1) / weights.sum() - output @ output)
    assert aware.variance <= plain.variance * (1 + 1e-12)
    assert aware.radius <= 2 * scale * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_plain_radius_is_the_longest_way_from_the_output_to_a_value(seed: int) -> None:
    weights, values = instance(seed)
    output = sum(w * v for w, v in zip(weights, values, strict=True)) / weights.sum()
    longest = max(np.sqrt(sum((v - output) ** 2)) for v in values)
    np.testing.assert_allclose(plain_spread(weights, values).radius, longest, rtol=1e-13)


def test_equal_norms_make_both_laws_one() -> None:
    weights, values = instance(3)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    plain, aware = plain_spread(weights, values), value_aware_spread(weights, values)
    np.testing.assert_allclose([plain.radius, plain.variance], [aware.radius, aware.variance])


def test_tokens_without_weight_do_not_count() -> None:
    weights, values = instance(4)
    weights[0], values[0] = 0.0, 1e6
    assert plain_spread(weights, values) == plain_spread(weights[1:], values[1:])
    assert value_aware_spread(weights, values).radius < 1e5


def test_values_of_zero_are_estimated_without_error() -> None:
    spread = value_aware_spread(np.ones(3), np.zeros((3, 2)))
    assert spread.hoeffding(0.1, 5) == 0
    with pytest.raises(ValueError, match="weights sum to 0"):
        plain_spread(np.zeros(3), np.zeros((3, 2)))


@given(st.integers(0, 10**6), st.floats(1e-9, 0.9), st.integers(1, 10**6))
def test_samples_invert_the_radii(seed: int, delta: float, num_samples: int) -> None:
    spread = plain_spread(*instance(seed))
    assert spread.hoeffding_samples(spread.hoeffding(delta, num_samples), delta) == num_samples
    assert spread.bernstein_samples(spread.bernstein(delta, num_samples), delta) == num_samples


def test_end_to_end_splits_delta_over_the_random_events() -> None:
    seen: dict[str, float] = {}

    def record(name: str, radius: float) -> object:
        def spend(delta: float) -> float:
            seen[name] = delta
            return radius

        return spend

    tables, draws = record("tables", 0.2), record("draws", 0.3)
    terms = end_to_end(0.06, finite_tables=tables, temperature=0.1, sampling=draws)  # type: ignore[arg-type]
    assert terms == ErrorTerms(0.3, 0.2, 0.1)
    assert terms.total == pytest.approx(0.6)
    assert seen == {"tables": 0.03, "draws": 0.03}
    end_to_end(0.06, finite_tables=tables, temperature=0.1, sampling=draws, table_events=2)  # type: ignore[arg-type]
    assert seen == {"tables": pytest.approx(0.04), "draws": pytest.approx(0.02)}
    without = end_to_end(0.06, finite_tables=tables, temperature=0.1)  # type: ignore[arg-type]
    assert seen["tables"] == 0.06
    assert without.sampling == 0


def test_end_to_end_takes_any_form_of_its_terms() -> None:
    spread = plain_spread(*instance(5))
    moment = end_to_end(
        0.1,
        finite_tables=lambda delta: float(chebyshev_radius(delta, 60, 0.2, 1.5)),
        temperature=0.01,
        sampling=lambda delta: spread.bernstein(delta, 1000),
    )
    worst_case = end_to_end(
        0.1,
        finite_tables=lambda delta: hoeffding_ratio_radius(delta, 10_000, 20.0, 1.0, 1.5),
        temperature=0.01,
        sampling=lambda delta: spread.hoeffding(delta, 1000),
        table_events=2,
    )
    assert 0.01 < moment.total < worst_case.total < np.inf


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"table_events=3 was given: pass 1, or 2 for the Hoeffding form"):
        end_to_end(0.1, finite_tables=lambda delta: 1.0, temperature=0.0, table_events=3)
    for wrong in (-1.0, np.nan):
        with pytest.raises(ValueError, match=f"temperature={wrong} was given: pass finite numbers of at least 0"):
            end_to_end(0.1, finite_tables=lambda delta: 1.0, temperature=wrong)
    with pytest.raises(TypeError, match="temperature=None was given: pass a real number"):
        end_to_end(0.1, finite_tables=lambda delta: 1.0, temperature=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="epsilon=1e-200 needs"):
        plain_spread(*instance(6)).hoeffding_samples(1e-200, 0.1)
    for spread in (plain_spread, value_aware_spread):
        with pytest.raises(ValueError, match="values contains NaN or infinity"):
            spread(np.ones(3), np.full((3, 2), np.nan))
        with pytest.raises(ValueError, match=r"values has shape \(2, 2\): pass \[3, E\]"):
            spread(np.ones(3), np.ones((2, 2)))
        with pytest.raises(ValueError, match=r"weights has shape \(3, 1\): pass \[N\]"):
            spread(np.ones((3, 1)), np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"delta=1.5 was given"):
        end_to_end(1.5, finite_tables=lambda delta: 1.0, temperature=0.0)
