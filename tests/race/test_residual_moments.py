"""Covariances of two keys' weights (R5's s^2) against plain quadrature and identities."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from socket_theory.core.angular import angles
from socket_theory.race.bounds.residual_moments import weight_covariance
from socket_theory.race.law import RaceKernel

Float = NDArray[np.float64]
RNG = np.random.default_rng(0)


def plain(kernel: RaceKernel, query: Float, near: Float, far: Float) -> float:
    """Cov(w_near, w_far) by the trapezoid rule in three independent projections."""
    basis = np.linalg.qr(np.stack([query, near, far], axis=1))[0]
    g = np.linspace(-8, 8, 161)
    weights = (g[1] - g[0]) * np.exp(-g * g / 2) / np.sqrt(2 * np.pi)
    grid = np.stack(np.meshgrid(g, g, g, indexing="ij"), axis=-1)
    a, b, c = (np.tanh(kernel.beta * np.tanh(grid @ (basis.T @ x))) for x in (query, near, far))

    def mean(bit: Float) -> float:
        return float(((bit @ weights) @ weights) @ weights)

    pair = mean((1 + a * b) * (1 + a * c) / 4)
    return pair**kernel.num_planes - (mean((1 + a * b) / 2) * mean((1 + a * c) / 2)) ** kernel.num_planes


def covariance(kernel: RaceKernel, query: Float, keys: Float) -> Float:
    lengths = np.linalg.norm(keys, axis=1)
    return weight_covariance(kernel, angles(query, keys), angles(keys, keys), float(np.linalg.norm(query)), lengths)


@pytest.mark.parametrize(("num_planes", "beta"), [(1, 2.0), (3, 1.0), (2, 3.0)])
def test_covariances_agree_with_plain_quadrature(num_planes: int, beta: float) -> None:
    kernel, query, keys = RaceKernel(num_planes, beta), 0.6 * RNG.standard_normal(5), 0.5 * RNG.standard_normal((3, 5))
    found = covariance(kernel, query, keys)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        np.testing.assert_allclose(found[i, j], plain(kernel, query, keys[i], keys[j]), atol=1e-8)
    np.testing.assert_allclose(found, found.T, rtol=1e-12)


def test_the_variance_of_one_weight_is_on_the_diagonal() -> None:
    query, keys = RNG.standard_normal(8), RNG.standard_normal((4, 8))
    kernel = RaceKernel(3, 2.0)
    own = kernel.variance(angles(query, keys), np.linalg.norm(query), np.linalg.norm(keys, axis=1))
    np.testing.assert_allclose(np.diag(covariance(kernel, query, keys)), own, atol=1e-14)


def test_equal_and_opposite_keys_need_no_series() -> None:
    """Of a key twice, and of its opposite: the two bits of a plane add up to 1 where b changes its sign."""
    query, key, other = RNG.standard_normal((3, 8))
    kernel = RaceKernel(1, 6.0)
    found = covariance(kernel, query, np.stack([key, key, -key, other, -other]))
    np.testing.assert_allclose(found[0, 1], found[0, 0], atol=1e-9)
    np.testing.assert_allclose(found[0, 2], -found[0, 0], atol=1e-9)
    np.testing.assert_allclose(found[0, 3], -found[0, 4], atol=1e-9)


def test_a_row_of_keys_has_a_covariance_matrix_and_what_the_series_misses_is_refused() -> None:
    query, keys = 2 * RNG.standard_normal(16), RNG.standard_normal((20, 16))
    assert np.linalg.eigvalsh(covariance(RaceKernel(2, 2.0), query, keys)).min() > 0
    near = np.stack([keys[0], keys[0] + 1e-3 * keys[1]])
    with pytest.raises(ValueError, match="too near to parallel"):
        covariance(RaceKernel(1, 8.0), query, near)
    with pytest.raises(ValueError, match=r"pass \[N\]"):
        weight_covariance(RaceKernel(1, 2.0), np.ones(3), np.ones((3, 2)), 1.0, np.ones(3))
    with pytest.raises(ValueError, match="nodes"):
        covariance(RaceKernel(1, 1e4), query, keys)
