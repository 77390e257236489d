"""Temperature bias (S6, S11) and the choice of temperature (S15), against exact kernels and published values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from socket_theory.core.hashing import QUERY_MAPS, QueryMap
from socket_theory.socket_lsh.bounds.temperature import (
    kernel_bias_bound,
    output_bias_bound,
    temperature_for_bias,
    uniform_kernel_bias_bound,
    uniform_output_bias_bound,
)
from socket_theory.socket_lsh.bounds.temperature_choice import optimal_temperature, signal_to_noise
from socket_theory.socket_lsh.law import SoftKernel

THETA = np.linspace(0, np.pi, 41)


@pytest.mark.parametrize("query_map", QUERY_MAPS)
@pytest.mark.parametrize("temperature", [0.01, 0.4, 3.0])
@pytest.mark.parametrize("num_planes", [1, 10])
def test_both_forms_cover_the_exact_bias_in_order(query_map: QueryMap, temperature: float, num_planes: int) -> None:
    kernel = SoftKernel(num_planes, temperature, query_map, 64)
    bias = np.abs(kernel.mean(THETA, 6.0) - kernel.hard_kernel(THETA))
    sharp, uniform = kernel_bias_bound(kernel, THETA, 6.0), uniform_kernel_bias_bound(kernel, 6.0)
    assert (bias <= sharp + 1e-15).all()
    assert (sharp <= uniform * (1 + 1e-12)).all()


@pytest.mark.parametrize(("query_map", "scale"), [("tanh", 1.0), ("linear", 1.0), ("tanh_scaled", 8.0)])
def test_gap_has_its_small_temperature_slope(query_map: QueryMap, scale: float) -> None:
    temperature, norm = 1e-3, 6.0
    slope = scale * np.log(2) / (norm * np.sqrt(2 * np.pi))
    gap = SoftKernel(1, temperature, query_map, 64).temperature_gap(norm)
    np.testing.assert_allclose(gap, slope * temperature, rtol=1e-4)


def test_slope_bounds_the_gap_of_the_linear_map_only() -> None:
    temperatures = np.array([0.05, 0.4, 3.0, 30.0])
    slope = temperatures * np.log(2) / (6 * np.sqrt(2 * np.pi))
    linear, tanh = (
        np.array([SoftKernel(1, t, query_map, 64).temperature_gap(6.0) for t in temperatures])
        for query_map in ("linear", "tanh")
    )
    assert (linear < slope).all()
    assert (tanh[:3] > slope[:3]).all()


def test_bias_is_of_second_order_at_a_fixed_angle() -> None:
    theta, norm, temperature = 0.8, 6.0, 0.01
    bias = 1 - theta / np.pi - SoftKernel(1, temperature, "linear", 64).bit_mean(theta, norm)
    np.testing.assert_allclose(bias, np.pi / 24 / np.tan(theta) * (temperature / norm) ** 2, rtol=1e-4)


@pytest.mark.parametrize("query_map", QUERY_MAPS)
@pytest.mark.parametrize("norm", [1e-20, 0.3, 11.0, 1e20])
@pytest.mark.parametrize("target", [1e-150, 1e-9, 0.01, 0.9])
def test_temperature_for_bias_inverts_the_uniform_bound(query_map: QueryMap, norm: float, target: float) -> None:
    temperature = temperature_for_bias(target, norm, 2, query_map, 64)
    bound = uniform_kernel_bias_bound(SoftKernel(2, temperature, query_map, 64), norm)
    np.testing.assert_allclose(bound, target, rtol=1e-9)


def test_every_temperature_meets_half_the_number_of_planes() -> None:
    assert temperature_for_bias(1.0, 6.0, 2, "tanh", 64) == math.inf


def test_output_bias_forms_cover_the_exact_bias() -> None:
    rng = np.random.default_rng(0)
    kernel, norm = SoftKernel(4, 0.7, "tanh", 64), 4.0
    theta, values = rng.uniform(0.2, 2.5, 30), rng.standard_normal((30, 3))
    soft, hard = kernel.mean(theta, norm), kernel.hard_kernel(theta)
    target = hard @ values / hard.sum()
    error = np.linalg.norm(soft @ values / soft.sum() - target)
    radius = float(np.max(np.linalg.norm(values - target, axis=1)))
    sharp = output_bias_bound(soft, hard, radius)
    assert 0 < error <= sharp <= uniform_output_bias_bound(kernel, norm, 30, float(soft.sum()), radius)


def test_uniform_output_bias_is_the_product_of_its_parts() -> None:
    kernel = SoftKernel(4, 0.7, "tanh", 64)
    expected = 2.5 * 30 * 4 * float(kernel.temperature_gap(6.0)) / 1.7
    np.testing.assert_allclose(uniform_output_bias_bound(kernel, 6.0, 30, 1.7, 2.5), expected, rtol=1e-12)


def test_biases_of_opposite_keys_cancel_in_the_sum_but_not_in_the_bound() -> None:
    """k, -k with v = +1, -1: the biases have opposite signs and cancel in the sum, but not in the output."""
    kernel = SoftKernel(1, 3.0, "tanh", 64)
    soft, hard = kernel.mean([0.8, np.pi - 0.8], 4.0), kernel.hard_kernel([0.8, np.pi - 0.8])
    error = abs((soft[0] - soft[1]) - (hard[0] - hard[1]))
    radius = 1 + abs(hard[0] - hard[1])
    assert abs((soft - hard).sum()) < 1e-12
    assert error <= output_bias_bound(soft, hard, radius) <= 2 * error


def orthogonal_residuals(theta_a: float, theta_b: float) -> float:
    return float(np.arccos(np.cos(theta_a) * np.cos(theta_b)))


@pytest.mark.parametrize(
    ("query_map", "temperature", "expected"),
    [
        ("tanh", 1e-4, 0.0676),
        ("tanh", 0.3, 0.0714),
        ("tanh", 0.4, 0.0749),
        ("tanh", 1.0, 0.142),
        ("tanh", 3.0, 0.355),
        ("tanh", 10.0, 0.440),
        ("tanh", 1e9, 0.450),
        ("linear", 1e9, 0.541),
        ("tanh_scaled", 0.3, 0.372),
        ("tanh_scaled", 0.4, 0.403),
        ("tanh_scaled", 1.0, 0.442),
    ],
)
def test_signal_to_noise_has_its_published_values(query_map: QueryMap, temperature: float, expected: float) -> None:
    kernel = SoftKernel(10, temperature, query_map, 128)
    ratio = signal_to_noise(kernel, 1.2, 1.5, orthogonal_residuals(1.2, 1.5), 11.0)
    np.testing.assert_allclose(ratio, expected, rtol=3e-3)


def test_signal_to_noise_of_equal_keys_is_zero_and_swaps_sign_with_its_keys() -> None:
    kernel = SoftKernel(10, 0.4, "tanh", 64)
    assert signal_to_noise(kernel, 1.0, 1.0, 0.0, 6.0) == 0
    forward, backward = signal_to_noise(kernel, [0.8, 1.0], [1.0, 0.8], [1.2, 1.2], 6.0)
    np.testing.assert_allclose(forward, -backward, rtol=1e-12)


def test_optimal_temperature_is_finite_for_a_near_key_and_infinite_for_far_ones() -> None:
    settings = {"num_planes": 10, "query_map": "tanh", "head_dim": 128}
    near = optimal_temperature(0.1, 0.8, orthogonal_residuals(0.1, 0.8), 11.0, **settings)  # type: ignore[arg-type]
    assert 1.5 <= near.temperature <= 3
    for temperature in (0.8 * near.temperature, 1.25 * near.temperature):
        kernel = SoftKernel(10, temperature, "tanh", 128)
        assert signal_to_noise(kernel, 0.1, 0.8, orthogonal_residuals(0.1, 0.8), 11.0) < near.value
    far = optimal_temperature(1.2, 1.5, orthogonal_residuals(1.2, 1.5), 11.0, **settings)  # type: ignore[arg-type]
    assert far.temperature == math.inf
    np.testing.assert_allclose(far.value, 0.450, rtol=3e-3)
    assert "signal-to-noise" in far.objective


def test_optimal_temperature_serves_the_worst_of_several_pairs() -> None:
    first, second = np.array([0.1, 1.2]), np.array([0.8, 1.5])
    between = np.arccos(np.cos(first) * np.cos(second))
    both = optimal_temperature(first, second, between, 11.0, num_planes=10, query_map="tanh", head_dim=128)
    np.testing.assert_allclose(both.value, 0.450, rtol=3e-3)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="theta_a must be below theta_b"):
        optimal_temperature(1.5, 1.2, 0.5, 11.0, num_planes=10, query_map="tanh", head_dim=128)
    with pytest.raises(ValueError, match=r"query_norm=0.0 was given: pass finite numbers above 0"):
        optimal_temperature(1.2, 1.5, 0.5, 0.0, num_planes=10, query_map="tanh", head_dim=128)
    with pytest.raises(ValueError, match=r"query_norm=0.0 was given: pass finite numbers above 0"):
        temperature_for_bias(0.1, 0.0, 2, "tanh", 64)
    with pytest.raises(ValueError, match=r"target=1e-300 was given: pass a number from 1e-150 to 1e\+150"):
        temperature_for_bias(1e-300, 1e-30, 2, "tanh", 64)
    with pytest.raises(ValueError, match=r"temperature=1e-300 was given for query_norm=1e\+30: pass a temperature"):
        uniform_kernel_bias_bound(SoftKernel(2, 1e-300, "linear", 64), 1e30)
    with pytest.raises(TypeError, match="target=None was given: pass a real number"):
        temperature_for_bias(None, 1.0, 2, "tanh", 64)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="theta_a is empty: pass the angles of at least one pair"):
        optimal_temperature([], [], [], 11.0, num_planes=10, query_map="tanh", head_dim=128)
    with pytest.raises(TypeError, match="query_norm='11' was given: pass a real number"):
        optimal_temperature(1.2, 1.5, 0.5, "11", num_planes=10, query_map="tanh", head_dim=128)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the sum of soft"):
        output_bias_bound([0.0, 0.0], [0.5, 0.5], 1.0)
