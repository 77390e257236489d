"""The tolerance table, and comparison by it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.checks import require_float
from socket_theory.core.hashing import Planes

Array = NDArray[Any]

TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "float16": 3e-3, "bfloat16": 1e-2}


def relative_rms(actual: Any, expected: Any) -> float:
    """RMS of the difference over RMS of `expected`; NaN anywhere gives NaN."""
    left, right = (np.asarray(a, dtype=np.float64) for a in (actual, expected))
    return float(np.sqrt(np.mean((left - right) ** 2)) / max(float(np.sqrt(np.mean(right**2))), 1e-300))


def assert_close(actual: Any, expected: Any, dtype: Any) -> None:
    """AssertionError unless shapes agree and `relative_rms` is within the table's tolerance of `dtype`."""
    if np.shape(actual) != np.shape(expected):
        raise AssertionError(f"shapes differ: {np.shape(actual)} against {np.shape(expected)}.")
    error, allowed = relative_rms(actual, expected), TOLERANCES[require_float("dtype", dtype)]
    if not error <= allowed:
        raise AssertionError(f"the relative RMS error is {error:.3g}, allowed for {dtype} is {allowed:g}.")


def assert_rounded(actual: Any, expected: Any, largest: float = 1.1, rms: float = 1.05) -> None:
    """AssertionError unless `actual` errs little more than `expected` does when it is rounded to the dtype of `actual`:
    by `largest` times as much at most, and `rms` times as much in RMS. Both come as arrays on the host.
    """
    exact = np.asarray(expected, dtype=np.float64)
    if np.shape(actual) != exact.shape:
        raise AssertionError(f"shapes differ: {np.shape(actual)} against {exact.shape}.")
    error, floor = (np.abs(array.astype(np.float64) - exact) for array in (actual, exact.astype(actual.dtype)))
    for name, found, allowed in (
        ("largest", error.max(), largest * floor.max()),
        ("RMS", np.sqrt(np.mean(error**2)), rms * np.sqrt(np.mean(floor**2))),
    ):
        if not found <= allowed:
            raise AssertionError(
                f"the {name} error is {found:.3g}, allowed for rounded {actual.dtype} is {allowed:.3g}."
            )


def rounding_margin(keys: Array, planes: Planes, center: Array | float = 0.0) -> Array:
    """Where a bit is certain on every backend: |<k-c, w>| > d 2^-23 |k-c| |w|.

    Shapes: keys [N, D] -> bool [L, P, N].
    """
    shifted = keys.astype(np.float64) - center
    projections = np.einsum("nd,lpd->lpn", shifted, planes.weights, optimize=True)
    lengths = np.linalg.norm(planes.weights, axis=-1)[..., None] * np.linalg.norm(shifted, axis=-1)
    return np.asarray(np.abs(projections) > planes.head_dim * 2.0**-23 * lengths)


def assert_scores(actual: Array, expected: Array, allowed: float) -> None:
    """AssertionError unless scores are -inf on the same slots, and their RMS error is within `allowed` standard
    deviations of the expected ones over tokens."""
    valid = np.isfinite(expected)
    if not np.array_equal(valid, np.isfinite(actual)) or (actual[~valid] != -np.inf).any():
        raise AssertionError("scores are finite on other slots than the reference's.")
    spread = max(float(np.std(expected[valid], dtype=np.float64)), 1e-6)
    error = float(np.sqrt(np.mean((actual[valid].astype(np.float64) - expected[valid]) ** 2)))
    if not error <= allowed * spread:
        raise AssertionError(f"the score error is {error / spread:.3g} standard deviations, allowed is {allowed:g}.")
