"""Soft angular attention: what SOCKET estimates with infinitely many tables at a finite temperature (S4)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.angular import angles
from socket_theory.core.attention import AttentionState, check_one_query, weighted_state
from socket_theory.socket_lsh.law import SoftKernel


def soft_angular_attention(
    query: NDArray[Any], keys: NDArray[Any], values: NDArray[Any], kernel: SoftKernel
) -> AttentionState:
    """y_tau = sum kappa_tau(theta_i, |q|) v_i / Z_tau: infinitely many tables at a finite temperature (S4).

    Shapes: query [D], keys [N, D], values [N, E] -> value [E], lse [].
    """
    check_one_query(query, keys, values)
    if kernel.head_dim != query.shape[-1]:
        raise ValueError(f"the kernel has head_dim={kernel.head_dim} and the query {query.shape[-1]}: make them equal.")
    wide = query.astype(np.float64)
    bit_mean = kernel.bit_mean(angles(query, keys), float(np.sqrt((wide * wide).sum())))
    with np.errstate(divide="ignore"):
        log_kernel = kernel.num_planes * np.log(bit_mean)
    return weighted_state(log_kernel, values, "angular")
