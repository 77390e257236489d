"""Arguments that every bound shares: probabilities, and counts rounded up."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]


def require_delta(delta: float) -> float:
    """`delta` as a float if it lies in (0, 1), else ValueError."""
    if not 0 < delta < 1:
        raise ValueError(f"delta={delta!r} was given: pass a failure probability strictly between 0 and 1.")
    return float(delta)


def require_nonnegative(name: str, value: ArrayLike) -> Float:
    """`value` as float64, or ValueError if an entry is negative, infinite or NaN."""
    array = np.asarray(value, dtype=np.float64)
    if not (np.isfinite(array) & (array >= 0)).all():
        raise ValueError(f"{name}={value!r} was given: pass finite numbers of at least 0.")
    return array


def require_above_zero(name: str, value: ArrayLike) -> Float:
    """`value` as float64, or ValueError if an entry is not finite and above 0."""
    array = require_nonnegative(name, value)
    if not (array > 0).all():
        raise ValueError(f"{name}={value!r} was given: pass finite numbers above 0.")
    return array


def round_up(count: float) -> int:
    """The smallest integer of at least 1 and of at least `count`, to 12 digits: rounding must not cost a table."""
    return max(1, math.ceil(count * (1 - 1e-12)))
