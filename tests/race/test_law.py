"""Exact laws of soft collisions of two vectors (R2-R4) against plain quadrature, limits and published values."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad

from socket_theory.core.angular import hard_kernel
from socket_theory.race.law import RaceKernel

Float = NDArray[np.float64]


def expectations(beta: float, theta: float, query_norm: float, key_norm: float) -> tuple[float, float]:
    """E[a b] and E[a^2 b^2] by the trapezoid rule in both independent projections, far finer than a bit turns."""
    x = np.linspace(-9, 9, 4001)
    weights = (x[1] - x[0]) * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    a = np.tanh(beta * np.tanh(query_norm * x))
    b = np.tanh(beta * np.tanh(key_norm * (x[:, None] * np.cos(theta) + x * np.sin(theta))))
    return float(weights * a @ b @ weights), float(weights * a**2 @ b**2 @ weights)


def test_the_mean_of_a_bit_is_the_published_one() -> None:
    assert RaceKernel(1, 2.0).bit_mean(0.8, 1.3, 0.9) == pytest.approx(0.68303, abs=5e-6)


@pytest.mark.parametrize(
    ("beta", "theta", "query_norm", "key_norm"),
    [
        (2.0, 0.8, 1.3, 0.9),
        (2.0, 1.2, 8.0, 8.0),
        (5.0, 0.3, 4.0, 2.0),
        (1 / math.sqrt(128), 1.5, 11.0, 0.3),
        (8.0, 2.8, 11.0, 3.0),
        (2.0, 3.1, 1.0, 0.01),
    ],
)
def test_moments_agree_with_plain_quadrature(beta: float, theta: float, query_norm: float, key_norm: float) -> None:
    first, square = expectations(beta, theta, query_norm, key_norm)
    mean, second = (1 + first) / 2, (1 + 2 * first + square) / 4
    at = theta, query_norm, key_norm
    for num_planes in (1, 4):
        kernel = RaceKernel(num_planes, beta)
        np.testing.assert_allclose(kernel.bit_mean(*at), mean, atol=1e-11)
        np.testing.assert_allclose(kernel.bit_second_moment(*at), second, atol=1e-11)
        np.testing.assert_allclose(kernel.mean(*at), mean**num_planes, atol=1e-10)
        np.testing.assert_allclose(kernel.second_moment(*at), second**num_planes, atol=1e-10)
        np.testing.assert_allclose(kernel.variance(*at), second**num_planes - mean ** (2 * num_planes), atol=1e-10)


@pytest.mark.parametrize(("beta", "norm"), [(0.1, 1.0), (2.0, 8.0), (50.0, 0.3), (1e4, 1.0), (3.0, 1e4)])
def test_the_gap_agrees_with_adaptive_quadrature(beta: float, norm: float) -> None:
    def tail(g: float) -> float:
        return math.exp(-g * g / 2) / (1 + math.exp(min(2 * beta * math.tanh(norm * g), 700)))

    turn = 1 / norm / max(1.0, beta)
    cuts = [0.0, *(turn * 4.0**j for j in range(-5, 16) if turn * 4.0**j < 12), 12.0]
    total = sum(quad(tail, *ends, epsabs=1e-15)[0] for ends in pairwise(cuts))
    np.testing.assert_allclose(RaceKernel(1, beta).gap(norm), math.sqrt(2 / math.pi) * total, rtol=1e-10)


@pytest.mark.parametrize("norms", [(1e-3, 1e5), (1e9, 1e9), (30.0, 30.0), (1e-6, 1e-6)])
@pytest.mark.parametrize("beta", [1e-3, 2.0, 80.0])
def test_every_scale_obeys_what_holds_exactly(beta: float, norms: tuple[float, float]) -> None:
    """Cauchy-Schwarz, the symmetries of angle and of the pair, and the law of one vector at an angle of 0."""
    kernel, theta = RaceKernel(1, beta), np.linspace(0, np.pi, 9)
    mean, second = kernel.bit_mean(theta, *norms), kernel.bit_second_moment(theta, *norms)
    np.testing.assert_allclose(mean + mean[::-1], 1, atol=1e-11)
    np.testing.assert_allclose(second - mean, (second - mean)[::-1], atol=1e-11)
    np.testing.assert_allclose(mean, kernel.bit_mean(theta, *norms[::-1]), atol=1e-11)
    assert (np.diff(mean) <= 1e-11).all()
    assert (second >= mean**2 - 1e-11).all()
    low, high = kernel.weight_range()
    assert ((mean >= low - 1e-11) & (mean <= high + 1e-11)).all()


def test_a_steep_kernel_is_the_hard_one_and_a_flat_one_is_flat() -> None:
    theta = np.linspace(0, np.pi, 7)
    np.testing.assert_allclose(RaceKernel(5, 1e7).mean(theta, 6.0, 3.0), hard_kernel(theta, 5), atol=1e-6)
    np.testing.assert_allclose(RaceKernel(5, 1e-6).mean(theta, 6.0, 3.0), 2.0**-5, rtol=1e-10)


def test_a_zero_vector_is_in_all_buckets_alike() -> None:
    kernel = RaceKernel(3, 2.0)
    np.testing.assert_array_equal(kernel.mean([0.0, 1.0, np.pi], 0.0, 4.0), 1 / 8)
    np.testing.assert_array_equal(kernel.variance([0.0, 1.0, np.pi], 4.0, 0.0), 0)
    assert kernel.gap(0.0) == pytest.approx(0.5, rel=1e-14)


def test_a_small_variance_keeps_its_digits() -> None:
    """To second order in beta, a = beta tanh(rho x): Var w = P 4^-P beta^4 Var(tanh tanh)."""
    beta, at = 1e-4, (1.0, 2.0, 3.0)
    first, square = expectations(1e-6, *at)
    slope = (square - first**2) * 1e24
    np.testing.assert_allclose(RaceKernel(3, beta).variance(*at), 3 * 4.0**-3 * beta**4 * slope, rtol=1e-6)


def test_the_range_of_weights_is_that_of_long_vectors() -> None:
    kernel, sharp = RaceKernel(3, 2.0), math.tanh(2.0) ** 2
    np.testing.assert_allclose(kernel.weight_range(), [((1 - sharp) / 2) ** 3, ((1 + sharp) / 2) ** 3], rtol=1e-12)
    np.testing.assert_allclose(kernel.mean([np.pi, 0.0], 1e9, 1e9), kernel.weight_range(), rtol=1e-7)
    np.testing.assert_allclose(RaceKernel(2, 1e4).weight_range(), [0, 1], atol=1e-300)


def test_arguments_broadcast_and_large_calls_agree_with_small_ones() -> None:
    kernel = RaceKernel(2, 3.0)
    theta, asked, held = np.linspace(0.1, 3, 7)[:, None, None], np.array([0.5, 4.0])[:, None], np.arange(1.0, 4.0)
    whole = kernel.variance(theta, asked, held)
    assert whole.shape == (7, 2, 3)
    np.testing.assert_allclose(whole[3, 1, 2], kernel.variance(theta[3, 0, 0], 4.0, 3.0), atol=1e-11)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda: RaceKernel(0, 2.0), "num_planes"),
        (lambda: RaceKernel(3, 0.0), "beta"),
        (lambda: RaceKernel(3, float("nan")), "beta"),
        (lambda: RaceKernel(3, 2.0).mean(4.0, 1.0, 1.0), "theta"),
        (lambda: RaceKernel(3, 2.0).mean(1.0, -1.0, 1.0), "query_norm"),
        (lambda: RaceKernel(3, 2.0).mean(1.0, 1.0, np.inf), "key_norm"),
        (lambda: RaceKernel(3, 2.0).gap(np.nan), "norm"),
    ],
)
def test_what_is_no_kernel_angle_or_length_is_refused(wrong: Callable[[], object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        wrong()
