"""Moments of the table residual (S9): exact by quadrature, unbiased from spare tables, exact for a mean of tables."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from socket_theory.bounds.residual import ResidualMoments, residual_covariance, spare_table_moments
from socket_theory.core.angular import angles
from socket_theory.core.hashing import Planes, apply_query_map, hash_keys, project_query
from socket_theory.core.rng import Key
from socket_theory.socket_lsh.bounds.residual_moments import table_residuals, weight_covariance
from socket_theory.socket_lsh.law import SoftKernel

POINTS = np.array([[3.0, 0.0], [-1.0, 2.0], [-1.0, -2.0], [-1.0, 0.0]])  # a centred law, each with probability 1/4
SIGMA = POINTS.T @ POINTS / 4
SQUARES = (POINTS**2).sum(axis=1)


def test_exact_moments_lie_within_the_confidence_of_spare_tables() -> None:
    rng, count = Key.from_seed(3).generator(), 6000
    query, keys, values = 1.5 * rng.standard_normal(8), rng.standard_normal((20, 8)), rng.standard_normal((20, 4))
    kernel, norm = SoftKernel(3, 0.7, "tanh", 8), float(np.linalg.norm(query))
    theta, pairs = angles(query, keys), np.stack([angles(key, keys) for key in keys])
    kappa = kernel.mean(theta, norm)
    target = kappa @ values / kappa.sum()
    sigma = residual_covariance(weight_covariance(kernel, theta, pairs, norm), values - target)

    planes = Planes(rng.standard_normal((count, 3, 8)))
    mapped = apply_query_map(project_query(query, planes), "tanh", 8)
    residuals, masses = table_residuals(mapped, hash_keys(keys, planes), 0.7, values, target)
    below, above = spare_table_moments(residuals, -5.0), spare_table_moments(residuals, 5.0)
    second, trace_square = float(np.trace(sigma)), float((sigma**2).sum())
    assert below.second <= second <= above.second < 1.2 * second
    assert below.trace_square <= trace_square <= above.trace_square
    np.testing.assert_allclose(residuals.mean(axis=0), 0, atol=5 * np.sqrt(second / count))
    np.testing.assert_allclose(masses.mean(), kappa.sum(), atol=5 * masses.std() / np.sqrt(count))


def test_spare_table_estimates_are_unbiased() -> None:
    """Over every sample of 3 tables from a centred law on 4 points, the mean of each estimate is the moment itself."""
    samples = itertools.product(POINTS, repeat=3)
    moments = [spare_table_moments(np.array(sample), 0.0) for sample in samples]
    assert np.mean([m.second for m in moments]) == pytest.approx(np.trace(SIGMA))
    assert np.mean([m.trace_square for m in moments]) == pytest.approx((SIGMA**2).sum())
    assert np.mean([m.fourth for m in moments]) == pytest.approx(np.mean(SQUARES**2))
    assert np.mean([m.square_variance for m in moments]) == pytest.approx(np.var(SQUARES))


@pytest.mark.parametrize("num_tables", [1, 2, 5])
def test_fourth_moment_of_a_mean_is_exact(num_tables: int) -> None:
    moments = ResidualMoments(float(np.trace(SIGMA)), float((SIGMA**2).sum()), float(np.mean(SQUARES**2)))
    means = [np.mean(sample, axis=0) for sample in itertools.product(POINTS, repeat=num_tables)]
    assert moments.mean_fourth(num_tables) == pytest.approx(np.mean([(m @ m) ** 2 for m in means]))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="the number of spare tables=1 was given: pass an integer of at least 3"):
        spare_table_moments(np.ones((1, 2)), 1.0)
    with pytest.raises(ValueError, match="residuals contains NaN or infinity"):
        spare_table_moments(np.full((3, 2), np.nan), 1.0)
    with pytest.raises(ValueError, match=r"residuals has shape \(3,\): pass \[rows, E\]"):
        spare_table_moments(np.ones(3), 1.0)
    with pytest.raises(ValueError, match="deviations=nan was given: pass a finite number of standard errors"):
        spare_table_moments(np.ones((3, 2)), np.nan)
    with pytest.raises(ValueError, match=r"pair_theta has shape \(3, 2\): pass \[3, 3\]"):
        weight_covariance(SoftKernel(1, 1.0, "tanh", 4), np.ones(3), np.ones((3, 2)), 1.0)
