"""Exact laws of sampled values: cells of offsets, strata, and the orders that hold between them and that do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_theory.core.draws import draw_tokens
from socket_theory.santa.bounds import koksma_radius
from socket_theory.santa.cost import group_reads, iid_inclusion, stratified_inclusion, systematic_inclusion
from socket_theory.santa.law import (
    iid_covariance,
    stratified_covariance,
    stratum_laws,
    systematic_covariance,
    systematic_law,
    value_covariance,
)
from socket_theory.santa.samplers import systematic_counts


@st.composite
def problems(draw):
    """Weights of any spread with zeros and ties, values, and a number of samples below or above the tokens."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    tokens = draw(st.integers(1, 30))
    weights = rng.gamma(draw(st.sampled_from([0.1, 1.0, 100.0])), size=tokens) + 1e-300
    weights[rng.random(tokens) < 0.2] = weights[0]
    weights[1:][rng.random(tokens - 1) < 0.2] = 0
    return weights, rng.standard_normal((tokens, 2)), draw(st.integers(1, 70))


def alternating(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """2S tokens of equal mass with values +1, -1, +1, ..."""
    return np.ones(2 * samples), np.tile([[1.0], [-1.0]], (samples, 1))


def least_eigenvalue(matrix: np.ndarray) -> float:
    return float(np.linalg.eigvalsh(matrix)[0])


@given(problems())
def test_cells_have_the_mean_of_the_counts(problem):
    weights, _, samples = problem
    law = systematic_law(weights, samples)
    assert law.probability.sum() == pytest.approx(1, abs=1e-12)
    assert len(law.counts) <= len(weights) + 1
    np.testing.assert_allclose(law.mean(), samples * weights / weights.sum(), atol=1e-12 * samples)
    fraction = samples * weights / weights.sum() % 1
    np.testing.assert_allclose(np.diag(law.covariance(np.eye(len(weights)))), fraction * (1 - fraction), atol=1e-10)


def test_cells_are_the_law_of_a_uniform_offset():
    rng = np.random.default_rng(1)
    weights, values = rng.gamma(0.5, size=20), rng.standard_normal((20, 3))
    offsets = (np.arange(100_000) + 0.5) / 100_000
    outputs = systematic_counts(weights, 7, offsets) @ values / 7
    np.testing.assert_allclose(
        systematic_covariance(weights, values, 7), np.cov(outputs.T, bias=True), atol=1e-4 * outputs.var()
    )


@given(problems())
def test_the_orders_that_are_proved(problem):
    weights, values, samples = problem
    whole = value_covariance(weights, values)
    iid, strata = iid_covariance(weights, values, samples), stratified_covariance(weights, values, samples)
    assert least_eigenvalue(iid - strata) >= -1e-12
    assert least_eigenvalue(whole - systematic_covariance(weights, values, samples)) >= -1e-12


@pytest.mark.parametrize("samples", [1, 5, 32])
def test_systematic_sampling_can_be_samples_times_worse_than_iid_or_exact(samples):
    weights, values = alternating(samples)
    np.testing.assert_allclose(systematic_covariance(weights, values, samples), 1)
    np.testing.assert_allclose(iid_covariance(weights, values, samples), 1 / samples)
    np.testing.assert_allclose(stratified_covariance(weights, values, samples), 1 / samples)
    if samples % 2 == 0:
        ordered = np.sort(values, axis=0)
        np.testing.assert_allclose(systematic_covariance(weights, ordered, samples), 0, atol=1e-15)


def test_more_systematic_samples_can_be_worse():
    weights, values = np.ones(48), np.tile([[1.0], [-1.0]], (24, 1))
    variances = [float(systematic_covariance(weights, values, s)[0, 0]) for s in (12, 16, 20, 24)]
    np.testing.assert_allclose(variances, [1, 0, 0.04, 1], atol=1e-12)


@given(problems())
def test_strata_partition_every_token(problem):
    weights, values, samples = problem
    laws = stratum_laws(weights, samples)
    np.testing.assert_allclose(laws.sum(axis=1), 1, atol=1e-12 * samples)
    np.testing.assert_allclose(laws.sum(axis=0), samples * weights / weights.sum(), atol=1e-12 * samples)
    counts = sum(np.diag(law) - np.outer(law, law) for law in laws)
    np.testing.assert_allclose(
        stratified_covariance(weights, values, samples), values.T @ counts @ values / samples**2, atol=1e-12
    )


def test_stratum_laws_are_those_of_the_draws():
    weights = np.random.default_rng(2).gamma(0.5, size=9)
    grid = (np.arange(50_000) + 0.5) / 50_000
    for stratum, law in enumerate(stratum_laws(weights, 4)):
        drawn = np.bincount(draw_tokens(weights, (stratum + grid) / 4), minlength=9) / len(grid)
        np.testing.assert_allclose(drawn, law, atol=1e-4)


def test_formulas_hold_beyond_as_many_samples_as_tokens():
    """Three tokens, six draws: Sigma over 6, and strata that lie inside one token or across two."""
    weights, values = np.array([0.5, 0.3, 0.2]), np.array([[1.0], [2.0], [4.0]])
    variance = weights @ values[:, 0] ** 2 - (weights @ values[:, 0]) ** 2
    assert iid_covariance(weights, values, 6)[0, 0] == pytest.approx(variance / 6)
    # 6 F = 3, 4.8, 6: one stratum is shared, 0.8 of the second token and 0.2 of the third.
    assert stratified_covariance(weights, values, 6)[0, 0] == pytest.approx(0.8 * 0.2 * 2**2 / 36)
    np.testing.assert_allclose(stratified_inclusion(weights, 6), 1)
    np.testing.assert_allclose(iid_inclusion(weights, 6), 1 - (1 - weights) ** 6)


@given(problems())
def test_distinct_rows_are_ordered_and_those_of_the_law(problem):
    weights, _, samples = problem
    law = systematic_law(weights, samples)
    systematic = systematic_inclusion(weights, samples)
    np.testing.assert_allclose(law.probability @ (law.counts > 0), systematic, atol=1e-10)
    iid, strata = iid_inclusion(weights, samples), stratified_inclusion(weights, samples)
    assert (iid <= strata + 1e-9).all()
    assert (strata <= systematic + 1e-9).all()
    assert systematic.sum() <= min(samples, np.count_nonzero(weights)) * (1 + 1e-9)
    by_hand = [1 - np.prod([1 - law[j] for law in stratum_laws(weights, samples)]) for j in range(len(weights))]
    np.testing.assert_allclose(strata, by_hand, atol=1e-12)


def test_a_group_reads_a_shared_row_once():
    assert group_reads(np.array([[1.0, 0.5, 0.0], [1.0, 0.5, 0.0]])) == pytest.approx(1.75)
    assert group_reads(np.array([[1.0, 0.0], [0.0, 1.0]])) == 2
    assert group_reads(np.full((3, 2), 0.5)) == 2 * (1 - 0.5**3)
    assert group_reads(np.eye(8)) == 8


@given(problems())
def test_no_offset_leaves_the_koksma_radius(problem):
    weights, values, samples = problem
    outputs = systematic_law(weights, samples).counts @ values / samples
    errors = np.linalg.norm(outputs - weights @ values / weights.sum(), axis=-1)
    assert (errors <= koksma_radius(values, samples) + 1e-12).all()
