"""Exact laws of soft collisions (S3-S6, S15) against adaptive quadrature, limits and published values."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit, ndtr

from socket_theory.core.angular import hard_kernel
from socket_theory.core.hashing import QUERY_MAPS, Planes, QueryMap, apply_query_map, hash_keys, project_query
from socket_theory.socket_lsh.collisions import log_soft_collisions
from socket_theory.socket_lsh.law import SoftKernel


def bit_values(kernel: SoftKernel, z: float) -> tuple[float, float]:
    """The bit where the signs disagree, and where they agree."""
    exponent = 2 * abs(float(apply_query_map(np.array(z), kernel.query_map, kernel.head_dim))) / kernel.temperature
    return float(expit(-exponent)), float(expit(exponent))


def expectation(conditional: Callable[[float], float], scales: list[float]) -> float:
    """E conditional(|g|) by adaptive quadrature with break points around every scale."""
    cuts = sorted({0.0, 10.0, *(s * 4.0**j for s in scales for j in range(-6, 7) if s * 4.0**j < 10)})
    density = np.sqrt(2 / np.pi)
    pieces = (
        quad(lambda g: conditional(g) * np.exp(-g * g / 2), a, b, epsabs=1e-14, epsrel=1e-11, limit=200)[0]
        for a, b in pairwise(cuts)
    )
    return float(density * sum(pieces))


def scales_of(kernel: SoftKernel, theta: float, norm: float) -> list[float]:
    reach = kernel.temperature * (np.sqrt(kernel.head_dim) if kernel.query_map == "tanh_scaled" else 1)
    return [1.0, reach / norm, 1 / norm, abs(np.tan(theta))]


@pytest.mark.parametrize("query_map", QUERY_MAPS)
@pytest.mark.parametrize(
    ("temperature", "theta", "norm"),
    [(0.4, 0.8, 6.0), (1e-3, 1e-3, 1e3), (1e3, 1.5, 0.1), (0.05, 2.9, 30.0), (3.0, 1e-8, 1e-3), (0.3, 1.2, 1e9)],
)
def test_bit_moments_agree_with_adaptive_quadrature(
    query_map: QueryMap, temperature: float, theta: float, norm: float
) -> None:
    kernel = SoftKernel(10, temperature, query_map, 128)
    scales = scales_of(kernel, theta, norm)

    def moment(power: int) -> float:
        def conditional(g: float) -> float:
            low, high = bit_values(kernel, norm * g)
            return float(ndtr(g / np.tan(theta)) * high**power + ndtr(-g / np.tan(theta)) * low**power)

        return expectation(conditional, scales)

    mean, second = moment(1), moment(2)
    np.testing.assert_allclose(kernel.bit_mean(theta, norm), mean, rtol=1e-10)
    np.testing.assert_allclose(kernel.mean(theta, norm), mean**10, rtol=1e-9)
    np.testing.assert_allclose(kernel.bit_second_moment(theta, norm), second, rtol=1e-10)
    np.testing.assert_allclose(kernel.variance(theta, norm), second**10 - mean**20, atol=1e-12)
    gap = expectation(lambda g: bit_values(kernel, norm * g)[0], scales)
    np.testing.assert_allclose(kernel.temperature_gap(norm), gap, rtol=1e-10)


@pytest.mark.parametrize("theta", [1e-5, 1.1e-3, 0.02])
def test_a_key_close_to_a_short_query_has_all_twelve_digits(theta: float) -> None:
    """The sign turns at |g| = theta, far below the |g| = 1 at which the weight does: both have to be resolved."""
    kernel = SoftKernel(1, 1.0, "linear", 16)

    def conditional(g: float) -> float:
        low, high = bit_values(kernel, g)
        return float(ndtr(g / np.tan(theta)) * high + ndtr(-g / np.tan(theta)) * low)

    np.testing.assert_allclose(kernel.bit_mean(theta, 1.0), expectation(conditional, [1.0, theta]), rtol=1e-12)


def bivariate_normal_probability(h: float, k: float, r: float) -> float:
    def density(x: float) -> float:
        return float(np.exp(-x * x / 2) / np.sqrt(2 * np.pi) * ndtr((k - r * x) / np.sqrt(1 - r * r)))

    return float(quad(density, -9, min(h, 9), epsabs=1e-12, epsrel=1e-10, limit=200)[0]) if h > -9 else 0.0


@pytest.mark.parametrize(
    ("query_map", "temperature", "angles"),
    [
        ("tanh", 0.4, (0.8, 1.0, 1.2)),
        ("tanh_scaled", 0.3, (1.2, 1.5, 2.0)),
        ("linear", 3.0, (0.3, 2.5, 2.6)),
        ("tanh", 0.4, (2.0, 2.5, 0.9)),
    ],
)
def test_pair_moment_agrees_with_nested_quadrature(
    query_map: QueryMap, temperature: float, angles: tuple[float, float, float]
) -> None:
    a, b, ab = angles
    kernel, norm = SoftKernel(3, temperature, query_map, 64), 5.0
    r = (np.cos(ab) - np.cos(a) * np.cos(b)) / (np.sin(a) * np.sin(b))

    def conditional(g: float) -> float:
        low, high = bit_values(kernel, norm * g)
        x, y = g / np.tan(a), g / np.tan(b)
        both = bivariate_normal_probability(x, y, r)
        one, none = ndtr(x) + ndtr(y) - 2 * both, 1 - ndtr(x) - ndtr(y) + both
        return float(both * high**2 + one * high * low + none * low**2)

    truth = expectation(conditional, [1.0])
    np.testing.assert_allclose(kernel.bit_pair_moment(*angles, norm), truth, rtol=1e-9)
    np.testing.assert_allclose(kernel.pair_moment(*angles, norm), truth**3, rtol=1e-9)
    covariance = truth**3 - kernel.mean(a, norm) * kernel.mean(b, norm)
    np.testing.assert_allclose(kernel.covariance(*angles, norm), covariance, atol=1e-11)


def test_the_ends_of_the_angle_range_are_exact() -> None:
    kernel = SoftKernel(10, 0.4, "tanh", 64)
    gap = kernel.temperature_gap(6.0)
    assert kernel.bit_mean(0.0, 6.0) == 1 - gap
    assert kernel.bit_mean(np.pi, 6.0) == gap
    np.testing.assert_allclose(kernel.mean(np.pi, 6.0), gap**10, rtol=1e-14)
    np.testing.assert_array_equal(kernel.hard_kernel([0.0, np.pi]), [1.0, 0.0])


def test_a_zero_query_is_a_fair_coin_without_noise() -> None:
    kernel = SoftKernel(3, 0.4, "tanh", 64)
    np.testing.assert_allclose(kernel.mean([0.0, 1.0, np.pi], 0.0), 1 / 8, rtol=1e-14)
    np.testing.assert_allclose(kernel.variance([0.0, 1.0, np.pi], 0.0), 0, atol=1e-15)


def test_cold_kernel_is_the_hard_one_and_hot_kernel_is_flat() -> None:
    theta = np.linspace(0.1, 3.0, 9)
    np.testing.assert_allclose(SoftKernel(5, 1e-6, "tanh", 64).mean(theta, 6.0), hard_kernel(theta, 5), atol=1e-6)
    np.testing.assert_allclose(SoftKernel(5, 1e6, "tanh", 64).mean(theta, 6.0), 2.0**-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("num_planes", "theta", "temperature", "ratio"), [(1, 0.01, 0.4, 1.6), (10, 0.001, 0.4, 9), (10, 3.0, 2.0, 810)]
)
def test_soft_collisions_can_vary_more_than_hard_ones(
    num_planes: int, theta: float, temperature: float, ratio: float
) -> None:
    kernel = SoftKernel(num_planes, temperature, "tanh", 64)
    hard = kernel.hard_kernel(theta)
    np.testing.assert_allclose(kernel.variance(theta, 6.0) / (hard * (1 - hard)), ratio, rtol=0.05)


def test_mean_difference_and_variances_keep_their_digits_at_a_high_temperature() -> None:
    """To first order in 1/tau, w = 2^-P (1 + sum_p h_p s_p / tau)."""
    angles, norm, num_planes, temperature = (1.2, 1.5, 1.4), 4.0, 4, 1e7
    kernel = SoftKernel(num_planes, temperature, "linear", 64)
    unit = 2.0**-num_planes * norm / temperature
    slope = np.sqrt(2 / np.pi) * (np.cos(1.2) - np.cos(1.5))  # E|g| s = sqrt(2/pi) cos(theta)
    np.testing.assert_allclose(kernel.mean_difference(1.2, 1.5, norm), num_planes * unit * slope, rtol=1e-5)
    variance = num_planes * unit**2 * (1 - 2 / np.pi * np.cos(1.2) ** 2)
    np.testing.assert_allclose(kernel.variance(1.2, norm), variance, rtol=1e-5)
    noise = kernel.variance(1.2, norm) + kernel.variance(1.5, norm) - 2 * kernel.covariance(*angles, norm)
    np.testing.assert_allclose(kernel.difference_variance(*angles, norm), noise, rtol=1e-9)


def test_weight_range_holds_and_is_approached_by_the_mean() -> None:
    low, high = SoftKernel(3, 0.4, "tanh", 64).weight_range()
    np.testing.assert_allclose([low, high], [expit(-5.0) ** 3, expit(5.0) ** 3])
    kernel = SoftKernel(3, 0.4, "tanh", 64)
    np.testing.assert_allclose(kernel.mean([0.0, np.pi], 1e9), [high, low], rtol=1e-6)
    assert SoftKernel(3, 0.4, "linear", 64).weight_range() == (0.0, 1.0)


@pytest.mark.parametrize(("query_map", "height"), [("tanh", 1.0), ("tanh_scaled", 1 / 8)])
def test_weight_range_is_that_of_a_long_query_with_itself_and_its_opposite(query_map: QueryMap, height: float) -> None:
    planes = Planes(np.random.default_rng(0).standard_normal((1, 3, 64)))
    query = 1e9 * np.ones(64)
    mapped = apply_query_map(project_query(query, planes), query_map, 64)
    weights = np.exp(log_soft_collisions(mapped, hash_keys(np.stack([-query, query]), planes), 0.4))[0]
    reached = SoftKernel(3, 0.4, query_map, 64).weight_range()
    np.testing.assert_allclose(reached, weights, rtol=1e-12)
    np.testing.assert_allclose(reached, [expit(-2 * height / 0.4) ** 3, expit(2 * height / 0.4) ** 3], rtol=1e-12)
