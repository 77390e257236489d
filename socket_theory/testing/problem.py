"""Random inputs of a decode step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.hashing import Planes, SignHash
from socket_theory.core.rng import Key

Array = NDArray[Any]


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
