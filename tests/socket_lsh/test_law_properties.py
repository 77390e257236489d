"""Exact laws of soft collisions at any argument: finite, ordered, symmetric (S7), within memory, and their errors."""

from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="pip install 'socket-theory[test]'")
from hypothesis import given
from hypothesis import strategies as st

from socket_theory.core.angular import hard_kernel
from socket_theory.core.hashing import QUERY_MAPS, QueryMap
from socket_theory.socket_lsh.law import SoftKernel

ANGLES = st.floats(0, np.pi)
NORMS = st.one_of(st.just(0.0), st.floats(-30, 30).map(lambda x: 10.0**x))
TEMPERATURES = st.floats(-3, 3).map(lambda x: 10.0**x)
KERNELS = st.builds(SoftKernel, st.integers(1, 16), TEMPERATURES, st.sampled_from(QUERY_MAPS), st.integers(1, 256))


@given(KERNELS, ANGLES, ANGLES, st.floats(0, 1), NORMS)
def test_every_moment_is_finite_and_ordered_at_any_argument(
    kernel: SoftKernel, theta_a: float, theta_b: float, share: float, norm: float
) -> None:
    narrow, wide = abs(theta_a - theta_b), min(theta_a + theta_b, 2 * np.pi - theta_a - theta_b)
    theta_ab = narrow + share * (wide - narrow)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, second = kernel.bit_mean(theta_a, norm), kernel.bit_second_moment(theta_a, norm)
        weight, square = kernel.mean(theta_a, norm), kernel.second_moment(theta_a, norm)
        variance = kernel.variance(theta_a, norm)
        pair = kernel.bit_pair_moment(theta_a, theta_b, theta_ab, norm)
        other = kernel.bit_second_moment(theta_b, norm)
        noise = kernel.difference_variance(theta_a, theta_b, theta_ab, norm)
    assert 0 < mean < 1 + 1e-12
    assert mean**2 <= second * (1 + 1e-12)
    assert second <= mean * (1 + 1e-12)
    assert 0 <= weight <= 1
    assert 0 <= square <= weight * (1 + 1e-9)
    assert 0 <= variance <= weight * (1 - weight) + 1e-12
    assert 0 <= pair <= np.sqrt(second * other) + 1e-12
    assert np.isfinite(noise)


@given(KERNELS, ANGLES, NORMS)
def test_turning_a_key_round_turns_its_bit_round(kernel: SoftKernel, theta: float, norm: float) -> None:
    mean, opposite = kernel.bit_mean(theta, norm), kernel.bit_mean(np.pi - theta, norm)
    np.testing.assert_allclose(mean + opposite, 1, atol=1e-12)
    second = kernel.bit_second_moment(theta, norm)
    np.testing.assert_allclose(kernel.bit_second_moment(np.pi - theta, norm), 1 - 2 * mean + second, atol=1e-12)
    both = kernel.bit_pair_moment(theta, np.pi - theta, np.pi, norm)
    np.testing.assert_allclose(both, mean - second, atol=1e-12)


@given(KERNELS, ANGLES, NORMS)
def test_a_pair_of_equal_keys_has_the_moments_of_one(kernel: SoftKernel, theta: float, norm: float) -> None:
    second = kernel.bit_second_moment(theta, norm)
    np.testing.assert_allclose(kernel.bit_pair_moment(theta, theta, 0.0, norm), second, atol=1e-12)
    np.testing.assert_allclose(kernel.difference_variance(theta, theta, 0.0, norm), 0, atol=1e-9)


@pytest.mark.parametrize("query_map", QUERY_MAPS)
def test_mean_falls_with_the_angle_from_above_half_to_below(query_map: QueryMap) -> None:
    theta = np.linspace(0, np.pi, 201)
    mean = SoftKernel(1, 0.4, query_map, 64).bit_mean(theta, 6.0)
    assert (np.diff(mean) < 0).all()
    acute, hard = theta <= np.pi / 2, hard_kernel(theta, 1)
    assert (mean[acute] <= hard[acute]).all()
    assert (mean[~acute] >= hard[~acute]).all()


def test_arguments_broadcast() -> None:
    kernel = SoftKernel(2, 0.4, "tanh", 64)
    theta, norm = np.linspace(0.1, 3, 4)[:, None], np.array([0.5, 6.0, 50.0])
    table = kernel.mean(theta, norm)
    assert table.shape == (4, 3)
    np.testing.assert_allclose(table[2, 1], kernel.mean(theta[2, 0], norm[1]), rtol=1e-12)
    assert kernel.pair_moment(theta, theta.T, np.abs(theta - theta.T), 6.0).shape == (4, 4)
    assert kernel.mean(np.empty(0), 6.0).shape == (0,)


def test_a_long_array_of_angles_has_the_moments_of_each() -> None:
    kernel, theta = SoftKernel(3, 0.4, "tanh", 64), np.linspace(0.01, 3.0, 9000)
    means = kernel.mean(theta, 6.0)
    for place in range(0, 9000, 777):
        np.testing.assert_allclose(means[place], kernel.mean(theta[place], 6.0), rtol=1e-9)


def test_memory_does_not_grow_with_the_nodes_of_the_quadrature() -> None:
    theta = np.linspace(0.01, 3.0, 32768)
    tracemalloc.start()
    SoftKernel(10, 0.4, "tanh", 128).mean(theta, 11.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: SoftKernel(0, 0.4, "tanh", 64), "num_planes=0 was given: pass an integer of at least 1"),
        (lambda: SoftKernel(2, 0.0, "tanh", 64), "temperature=0.0 was given: pass a finite number above 0"),
        (lambda: SoftKernel(2, np.inf, "tanh", 64), "temperature=inf was given"),
        (lambda: SoftKernel(2, 0.4, "cosh", 64), "query_map='cosh' is unknown: pass one of tanh_scaled, tanh, linear"),  # type: ignore[arg-type]
        (lambda: SoftKernel(2, 0.4, "tanh", 64).mean(3.5, 1.0), r"theta has an entry outside \[0, pi\]"),
        (lambda: SoftKernel(2, 0.4, "tanh", 64).mean(np.nan, 1.0), r"theta has an entry outside \[0, pi\]"),
        (lambda: SoftKernel(2, 0.4, "tanh", 64).mean(1.0, -1.0), "query_norm has a negative or non-finite entry"),
        (lambda: SoftKernel(2, 0.4, "tanh", 64).covariance(0.1, 0.2, 2.0, 1.0), "not the angles of three vectors"),
        (lambda: hard_kernel(-0.1, 3), "pass angles in radians"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
