"""Pair moments of keys at right angles to the query (S15), where a rounded angle sum once cost every digit.

There <w, k_a> and <w, k_b> do not depend on <w, q>: their signs agree with probability 1 - psi/pi, so that the
covariance of two bits is (1 - 2 psi/pi) E gain^2 / 4. Tilts of the keys by t move it by the order of t^2 / sin psi.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from socket_theory.bounds.residual import residual_covariance
from socket_theory.core.angular import angles
from socket_theory.core.hashing import Planes, apply_query_map, hash_keys, project_query
from socket_theory.core.rng import Key
from socket_theory.socket_lsh.bounds.residual_moments import table_residuals, weight_covariance
from socket_theory.socket_lsh.law import SoftKernel

RIGHT, ULP = np.pi / 2, float(np.spacing(np.pi / 2))
TILTS = np.array([s * t for t in (0.0, ULP, 2 * ULP, 1e-12, 1e-8) for s in (-1, 1)])
TEMPERATURE, NORM = 0.4, 6.0


def mean_square_gain() -> float:
    """E tanh(tanh(rho |g|)/tau)^2 by adaptive quadrature."""
    return float(
        quad(
            lambda g: np.sqrt(2 / np.pi) * np.exp(-g * g / 2) * np.tanh(np.tanh(NORM * g) / TEMPERATURE) ** 2,
            0,
            12,
            points=[0.05, 0.3, 1.0],
            epsabs=1e-14,
            epsrel=1e-13,
            limit=200,
        )[0]
    )


@pytest.mark.parametrize("psi", [0.01, 1.5, 1.65, 2.4, 3.1])
def test_covariance_of_keys_at_the_equator_is_that_of_their_signs(psi: float) -> None:
    kernel = SoftKernel(1, TEMPERATURE, "tanh", 16)
    theta_a, theta_b = RIGHT + TILTS[:, None], RIGHT + TILTS[None, :]
    chord = np.sin((theta_a - theta_b) / 2) ** 2 + np.sin(theta_a) * np.sin(theta_b) * np.sin(psi / 2) ** 2
    apart = 2 * np.arcsin(np.sqrt(chord))
    expected = (1 - 2 * psi / np.pi) * mean_square_gain() / 4
    np.testing.assert_allclose(kernel.covariance(theta_a, theta_b, apart, NORM), expected, atol=1e-12)
    means = kernel.mean(theta_a, NORM) * kernel.mean(theta_b, NORM)
    np.testing.assert_allclose(kernel.bit_pair_moment(theta_a, theta_b, apart, NORM), means + expected, atol=1e-12)


def test_six_keys_around_the_equator_have_the_second_moment_of_drawn_tables() -> None:
    rng, count = Key.from_seed(3).generator(), 40_000
    frame = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    phase = np.arange(6) * np.pi / 3 + 0.1
    query, values = NORM * frame[0], np.stack([np.cos(phase), np.sin(phase)], axis=1)  # y_tau = 0 by symmetry
    keys = values @ frame[1:3]
    kernel = SoftKernel(1, TEMPERATURE, "tanh", 8)
    covariance = weight_covariance(kernel, angles(query, keys), np.stack([angles(k, keys) for k in keys]), NORM)
    assert np.linalg.eigvalsh(covariance).min() > -1e-12
    planes = Planes(rng.standard_normal((count, 1, 8)))
    mapped = apply_query_map(project_query(query, planes), "tanh", 8)
    residuals, _ = table_residuals(mapped, hash_keys(keys, planes), TEMPERATURE, values, np.zeros(2))
    squares = (residuals**2).sum(axis=1)
    second = np.trace(residual_covariance(covariance, values))
    assert abs(squares.mean() - second) < 5 * squares.std() / np.sqrt(count)
    flipped = covariance.copy()
    flipped[0, 2] = flipped[2, 0] = -flipped[0, 2]  # the control: one pair of keys with the wrong sign
    wrong = np.trace(residual_covariance(flipped, values))
    assert abs(squares.mean() - wrong) > 5 * squares.std() / np.sqrt(count)
