"""Bounds on the bias (R3) and on one entry (R4): each constant against its formula, and what the page says of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from socket_theory.race.bounds.bias import first_order_bit_bias, kernel_bias_bound, uniform_kernel_bias_bound
from socket_theory.race.bounds.entries import (
    bernstein_entry_radius,
    collision_half_range,
    collision_reach,
    hoeffding_entry_radius,
    weight_bound,
)
from socket_theory.race.law import RaceKernel

KERNEL, AT = RaceKernel(3, 2.0), (0.8, 1.3, 0.9)
HIGH, LOW = ((1 + math.tanh(2.0) ** 2) / 2) ** 3, ((1 - math.tanh(2.0) ** 2) / 2) ** 3
LOG = math.log(2 / 0.05)


def test_entry_bounds_have_the_values_of_their_formulas() -> None:
    assert collision_half_range(KERNEL) == pytest.approx((HIGH - LOW) / 2, rel=1e-12)
    assert weight_bound(KERNEL, 20) == pytest.approx(20 * HIGH, rel=1e-12)
    assert hoeffding_entry_radius(KERNEL, 0.05, 40) == pytest.approx((HIGH - LOW) * math.sqrt(LOG / 80), rel=1e-12)
    variance, mean = float(KERNEL.variance(*AT)), float(KERNEL.mean(*AT))
    assert collision_reach(KERNEL, *AT) == (pytest.approx(HIGH - mean, rel=1e-12), pytest.approx(mean - LOW, rel=1e-12))
    linear = max(HIGH - mean, mean - LOW) * LOG / 40 / 3
    expected = linear + math.sqrt(linear**2 + 2 * variance * LOG / 40)
    assert bernstein_entry_radius(KERNEL, 0.05, 40, *AT) == pytest.approx(expected, rel=1e-12)


def test_bias_bounds_have_the_values_of_their_formulas() -> None:
    soft, hard = float(KERNEL.bit_mean(*AT)), 1 - 0.8 / math.pi
    assert kernel_bias_bound(KERNEL, *AT) == pytest.approx(3 * max(soft, hard) ** 2 * abs(soft - hard), rel=1e-12)
    both = float(KERNEL.gap(1.3) + KERNEL.gap(0.9))
    assert uniform_kernel_bias_bound(KERNEL, 1.3, 0.9) == pytest.approx(3 * both, rel=1e-12)
    first = math.pi / 24 / math.tan(0.8) * (1.3**-2 + 0.9**-2) / 4
    assert first_order_bit_bias(2.0, 0.8, 1.3, 0.9) == pytest.approx(first, rel=1e-12)


@pytest.mark.parametrize("theta", [0.3, 1.2, 2.5])
def test_the_bias_tends_to_its_first_order(theta: float) -> None:
    bias = 1 - theta / np.pi - RaceKernel(1, 100.0).bit_mean(theta, 2.0, 3.0)
    assert bias == pytest.approx(float(first_order_bit_bias(100.0, theta, 2.0, 3.0)), rel=1e-3)


def test_the_uniform_bound_is_nearly_attained_close_to_a_query() -> None:
    """At an angle of 0 the bias of a bit is eps_q + eps_k - 2 E[eps_q eps_k]."""
    kernel = RaceKernel(1, 20.0)
    bias = 1 - float(kernel.bit_mean(0.0, 0.5, 40.0))
    assert 0.97 * float(uniform_kernel_bias_bound(kernel, 0.5, 40.0)) < bias


def test_at_the_released_beta_the_bias_bound_says_nothing() -> None:
    released = RaceKernel(1, 1 / math.sqrt(128))
    for norm in (0.1, 1.0, math.sqrt(128), 1e9):
        assert 0.455 < released.gap(norm) <= 0.5
    assert uniform_kernel_bias_bound(released, 1e9, 1e9) > 0.9


def test_an_angle_of_zero_has_no_first_order() -> None:
    with pytest.raises(ValueError, match="theta"):
        first_order_bit_bias(2.0, 0.0, 1.0, 1.0)
