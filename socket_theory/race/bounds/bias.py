"""What a finite beta costs in bias against the angular kernel (1 - theta/pi)^P (R3). Assumes Gaussian planes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from socket_theory.core.arguments import Float, require_above_zero
from socket_theory.core.checks import require_angle
from socket_theory.race.law import RaceKernel


def kernel_bias_bound(kernel: RaceKernel, theta: ArrayLike, query_norm: ArrayLike, key_norm: ArrayLike) -> Float:
    """|kappa - kappa_0| <= P max(g, 1 - theta/pi)^(P-1) |g - (1 - theta/pi)|, from the exact g (R3). Broadcasts.

    Raised, beta and both lengths lower it; num_planes raises the factor P and lowers the power.
    """
    soft, hard = kernel.bit_mean(theta, query_norm, key_norm), 1 - require_angle("theta", theta) / np.pi
    return np.asarray(kernel.num_planes * np.maximum(soft, hard) ** (kernel.num_planes - 1) * np.abs(soft - hard))


def uniform_kernel_bias_bound(kernel: RaceKernel, query_norm: ArrayLike, key_norm: ArrayLike) -> Float:
    """|kappa - kappa_0| <= P (eps_beta(rho_q) + eps_beta(rho_k)) at every angle (R3), the paper's O(P/beta).

    Proportional to P, and as beta grows to 1/beta. It says nothing from 1 on, as at the released beta = 1/sqrt(128),
    where each eps is above .455 for vectors of any length.
    """
    return np.asarray(kernel.num_planes * (kernel.gap(query_norm) + kernel.gap(key_norm)))


def first_order_bit_bias(beta: float, theta: ArrayLike, query_norm: ArrayLike, key_norm: ArrayLike) -> Float:
    """(pi/24) cot(theta) (rho_q^-2 + rho_k^-2) / beta^2, which (1 - theta/pi) - g_beta tends to as beta grows (R3).

    An asymptote at a fixed angle inside (0, pi), and no bound. Twice the beta, or lengths, give a quarter of it.
    """
    shape = require_above_zero("query_norm", query_norm) ** -2.0 + require_above_zero("key_norm", key_norm) ** -2.0
    slope = np.pi / 24 / np.tan(require_above_zero("theta", require_angle("theta", theta)))
    return np.asarray(slope * shape / require_above_zero("beta", beta) ** 2)
