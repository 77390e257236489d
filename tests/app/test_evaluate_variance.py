"""The exact variance of sampled attention in linear memory, and the slope that it falls with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_theory.core.rng import Key
from socket_theory.evaluate.sampling_variance import SAMPLERS, variance_curves, variance_traces
from socket_theory.santa.law import iid_covariance, stratified_covariance, systematic_covariance

LAWS = (iid_covariance, stratified_covariance, systematic_covariance)


def exact_traces(weights: np.ndarray, values: np.ndarray, num_samples: list[int]) -> np.ndarray:
    return np.array([[np.trace(law(weights, values, samples)) for samples in num_samples] for law in LAWS])


@given(
    seed=st.integers(0, 2**32),
    tokens=st.integers(1, 60),
    num_samples=st.lists(st.integers(1, 100), min_size=1, max_size=3),
    peak=st.floats(0, 8),
    masked=st.floats(0, 0.9),
)
def test_the_traces_are_those_of_the_covariances_by_cells(
    seed: int, tokens: int, num_samples: list[int], peak: float, masked: float
) -> None:
    draw = Key.from_seed(seed).generator()
    weights = np.exp(peak * draw.normal(size=(2, tokens))) * (draw.random((2, tokens)) >= masked)
    weights[:, draw.integers(tokens)] = 1
    values = draw.normal(size=(tokens, 3))
    for traces, row in zip(variance_traces(weights, values, num_samples), weights, strict=True):
        np.testing.assert_allclose(traces, exact_traces(row, values, num_samples), rtol=1e-8, atol=1e-13)


def test_ties_and_whole_shares_are_exact() -> None:
    """Equal masses put every border of a stratum on the border of a token."""
    weights, values = np.ones((1, 64)), Key.from_seed(2).generator().normal(size=(64, 4))
    num_samples = [8, 32, 64, 128]
    traces = variance_traces(weights, values, num_samples)[0]
    np.testing.assert_allclose(traces, exact_traces(weights[0], values, num_samples), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(traces[1:, 2:], 0, atol=1e-15)


def test_the_order_of_tokens_decides_about_systematic_draws() -> None:
    """n = 2S alternating values: S times the variance of independent draws, and none when sorted (N5)."""
    weights, values = np.ones((1, 32)), np.tile([[1.0], [-1.0]], (16, 1))
    (iid,), (stratified,), (systematic,) = variance_traces(weights, values, [16])[0]
    assert stratified == pytest.approx(iid)
    assert systematic == pytest.approx(16 * iid)
    assert variance_traces(weights, np.sort(values, axis=0), [16])[0, 2, 0] == pytest.approx(0, abs=1e-15)


def powers(exponents: list[float], num_samples: list[int], size: float = 1.0) -> np.ndarray:
    """Relative variances [1, heads, 2, 3, S] that fall with a known power in each head, for all samplers alike."""
    curves = size * np.array(num_samples, dtype=float) ** np.array(exponents)[:, None]
    return np.broadcast_to(curves[None, :, None, None], (1, len(exponents), 2, 3, len(num_samples)))


def test_slopes_are_those_of_the_heads() -> None:
    num_samples, exponents = [32, 64, 512], np.linspace(-2, -1, 11).tolist()
    curves = variance_curves(powers(exponents, num_samples), num_samples)
    assert [curve.sampler for curve in curves] == list(SAMPLERS)
    for curve in curves:
        assert curve.slope == pytest.approx(-1.5)
        assert (curve.slope_p10, curve.slope_p90) == pytest.approx((-1.9, -1.1))
        assert curve.slope_standard_error == pytest.approx(np.std(exponents, ddof=1) / np.sqrt(11))
        assert curve.heads == 11
        np.testing.assert_allclose(curve.relative_variance, np.array(num_samples) ** -1.5)


def test_the_slope_of_the_mean_variance_is_that_of_the_largest_heads() -> None:
    num_samples = [32, 1024]
    relative = np.concatenate([powers([-2.0], num_samples), powers([-1.0], num_samples, size=1e6)], axis=1)
    (curve, *_) = variance_curves(relative, num_samples)
    assert curve.slope == pytest.approx(-1.5)
    assert curve.slope_of_mean == pytest.approx(-1, abs=1e-4)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_head_without_variance_or_output_does_not_count(value: float) -> None:
    relative = powers([-1.0, -1.2, -2.0], [32, 64]).copy()
    relative[0, 2, 1, :, 0] = value
    (curve, *_) = variance_curves(relative, [32, 64])
    assert curve.heads == 2
    assert curve.slope == pytest.approx(-1.1)
    (none, *_) = variance_curves(relative * value, [32, 64])
    assert (none.slope, none.slope_p10, none.relative_variance, none.heads) == (None, None, [], 0)


def test_one_head_has_a_slope_without_an_error_bar() -> None:
    (curve, *_) = variance_curves(powers([-1.3], [32, 64, 128]), [32, 64, 128])
    assert curve.slope == pytest.approx(-1.3)
    assert curve.slope_standard_error is None
