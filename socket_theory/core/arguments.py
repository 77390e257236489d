"""Arguments that every bound shares: probabilities, numbers, rows of numbers, and counts rounded up."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from socket_theory.core.checks import require_numbers

Float = NDArray[np.float64]
_LARGEST_COUNT = 1e18
_NORMS = (1e-150, 1e150)


def require_delta(delta: float, name: str = "delta") -> float:
    """`delta` as a float if it is a number in (0, 1), else TypeError or ValueError."""
    array = require_numbers(name, delta)
    if array.ndim or not 0 < array < 1:
        raise ValueError(f"{name}={delta!r} was given: pass a failure probability strictly between 0 and 1.")
    return float(array)


def require_nonnegative(name: str, value: ArrayLike) -> Float:
    """`value` as float64, or ValueError if an entry is negative, infinite or NaN."""
    array = require_numbers(name, value)
    if not (np.isfinite(array) & (array >= 0)).all():
        raise ValueError(f"{name}={value!r} was given: pass finite numbers of at least 0.")
    return array


def require_above_zero(name: str, value: ArrayLike) -> Float:
    """`value` as float64, or ValueError if an entry is not finite and above 0."""
    array = require_numbers(name, value)
    if not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"{name}={value!r} was given: pass finite numbers above 0.")
    return array


def nonnegative_number(name: str, value: ArrayLike) -> float:
    """`value` as one float of at least 0, else TypeError or ValueError."""
    return _one(name, require_nonnegative(name, value))


def positive_number(name: str, value: ArrayLike) -> float:
    """`value` as one finite float above 0, else TypeError or ValueError."""
    return _one(name, require_above_zero(name, value))


def moderate_number(name: str, value: ArrayLike) -> float:
    """`value` as one float in [1e-150, 1e150], whose products with another such one stay in float64."""
    low, high = _NORMS
    number = positive_number(name, value)
    if not low <= number <= high:
        raise ValueError(f"{name}={value!r} was given: pass a number from {low:g} to {high:g}.")
    return number


def require_rows(name: str, value: ArrayLike, count: int | None = None) -> Float:
    """`value` as float64 [rows, columns], or ValueError for other shapes, other than `count` rows, NaN or infinity."""
    array = require_numbers(name, value)
    if array.ndim != 2 or (count is not None and len(array) != count):
        rows = "rows" if count is None else count
        raise ValueError(f"{name} has shape {array.shape}: pass [{rows}, E], a vector of E numbers in each row.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} contains NaN or infinity: pass finite numbers.")
    return array


def round_up(count: float, name: str, value: float) -> int:
    """The smallest integer of at least 1 and of at least `count`, to 12 digits: rounding must not cost a table.

    ValueError, which blames `name` = `value`, for a count above 1e18.
    """
    if not count <= _LARGEST_COUNT:
        raise ValueError(f"{name}={value!r} needs more than {_LARGEST_COUNT:g} terms: pass a larger one.")
    return max(1, math.ceil(count * (1 - 1e-12)))


def _one(name: str, array: Float) -> float:
    if array.ndim:
        raise ValueError(f"{name} has shape {array.shape}: pass a single number.")
    return float(array)
