"""For tests, ours and other backends': the tolerance table, comparison and inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.checks import require_float
from socket_theory.core.hashing import Planes, SignHash
from socket_theory.core.rng import Key

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


def rounding_margin(keys: Array, planes: Planes, center: Array | float = 0.0) -> Array:
    """Where a bit is certain on every backend: |<k-c, w>| > d 2^-23 |k-c| |w|.

    Shapes: keys [N, D] -> bool [L, P, N].
    """
    shifted = keys.astype(np.float64) - center
    projections = np.einsum("nd,lpd->lpn", shifted, planes.weights, optimize=True)
    lengths = np.linalg.norm(planes.weights, axis=-1)[..., None] * np.linalg.norm(shifted, axis=-1)
    return np.asarray(np.abs(projections) > planes.head_dim * 2.0**-23 * lengths)


@dataclass(frozen=True, eq=False)
class Problem:
    """A random decode step: query [B, Hq, D], keys and values [B, Hkv, N, D], spans [B, 2], planes."""

    query: Array
    keys: Array
    values: Array
    spans: Array
    planes: Planes


def random_problem(
    key: Key,
    *,
    batch: int = 2,
    num_qo_heads: int = 4,
    num_kv_heads: int = 2,
    slots: int = 97,
    head_dim: int = 32,
    num_tables: int = 12,
    num_planes: int = 10,
    dtype: Any = np.float32,
) -> Problem:
    """Gaussian inputs with ragged spans (left and right padding); invalid slots hold NaN."""
    draw = key.fold_in("problem").generator()
    start = draw.integers(0, max(1, slots // 4), batch)
    length = draw.integers(1, slots - start + 1)
    query = 2 * draw.standard_normal((batch, num_qo_heads, head_dim))
    keys, values = draw.standard_normal((2, batch, num_kv_heads, slots, head_dim))
    for row in range(batch):
        for array in (keys, values):
            array[row, :, : start[row]] = np.nan
            array[row, :, start[row] + length[row] :] = np.nan
    planes = SignHash(num_tables, num_planes, head_dim).draw(key)
    spans = np.stack([start, length], axis=1).astype(np.int64)
    return Problem(query.astype(dtype), keys.astype(dtype), values.astype(dtype), spans, planes)
