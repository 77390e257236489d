"""Differences of powers, which the moments of products of equal factors are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def power_step(base: Float, step: Float, power: int) -> Float:
    """(base + step)^power - base^power without cancellation, for an integer power of at least 1. Broadcasts."""
    return np.asarray(step * sum((base + step) ** j * base ** (power - 1 - j) for j in range(power)))
