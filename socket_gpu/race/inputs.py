"""Whole sequences on the device: random queries, keys, values and gradients, with the planes and beta they go by."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.bench.shape import SEED
from socket_gpu.race.cases import BETA, PLANES, TABLES, Case
from socket_theory.core.checks import bfloat16
from socket_theory.core.hashing import SignHash
from socket_theory.core.rng import Key

PIECE = 2**18
"""Tokens that are drawn at a time, so that float32 never takes much memory."""


@dataclass(frozen=True, eq=False)
class SequenceInputs:
    """query [1, Hq, N, D], keys and values [1, Hkv, N, D] on the device; planes float32 [L, P, D] and beta []."""

    query: Any
    keys: Any
    values: Any
    planes: Any
    beta: Any

    @classmethod
    def draw(cls, case: Case) -> SequenceInputs:
        """Standard normal ones from SEED, rounded to the case's dtype."""
        cupy, shape = import_module("cupy"), case.shape
        query, keys, values = (
            empty((1, heads, shape.kv_len, shape.head_dim), dtype_of(case))
            for heads in (shape.num_qo_heads, shape.num_kv_heads, shape.num_kv_heads)
        )
        for number, target in enumerate((query, keys, values)):
            fill(target, number)
        weights = SignHash(TABLES, PLANES, shape.head_dim).draw(Key.from_seed(SEED)).weights
        return cls(query, keys, values, cupy.asarray(weights.astype(np.float32)), cupy.asarray(np.float32(BETA)))


def dtype_of(case: Case) -> Any:
    """The dtype of a case's arrays."""
    return bfloat16() if case.dtype == "bfloat16" else np.dtype(case.dtype)


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of the device whose numbers are not set."""
    return import_module("cupy").empty(shape, np.uint16 if str(dtype) == "bfloat16" else dtype).view(dtype)


def bits(array: Any) -> Any:
    """An array of bfloat16 as one of uint16, which every operation takes; others as they are."""
    return array.view(np.uint16) if str(array.dtype) == "bfloat16" else array


def fill(target: Any, number: int) -> None:
    """Standard normal numbers into an array [1, H, N, D], the same ones for the same number."""
    random = import_module("cupy").random.RandomState(SEED + number)
    for head in range(target.shape[1]):
        for start in range(0, target.shape[2], PIECE):
            rows = target[0, head, start : start + PIECE]
            store(rows, random.standard_normal(rows.shape, dtype=np.float32))


def store(target: Any, numbers: Any) -> None:
    """Write float32 numbers into an array of bfloat16 or float32, rounded to the nearest."""
    if str(target.dtype) == "bfloat16":
        bits(target)[...] = (_rounded_bits(numbers) >> np.uint32(16)).astype(np.uint16)
    else:
        target[...] = numbers


def rounded(numbers: Any, dtype: Any) -> Any:
    """Float64 numbers at the nearest ones of bfloat16 or float32, in float64."""
    narrow = numbers.astype(np.float32)
    if str(dtype) == "bfloat16":
        narrow = _rounded_bits(narrow).view(np.float32)
    return narrow.astype(np.float64)


def _rounded_bits(numbers: Any) -> Any:
    """Bits of float32 numbers, rounded to those of bfloat16, ties to even."""
    bits = numbers.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return (bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)
