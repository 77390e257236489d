"""Whole sequences for RACE's kernels, on a GPU or built for a CPU: inputs, what float64 says of them, and faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from socket_gpu.core import _compile
from socket_gpu.race import bucket_sums, sequences
from socket_gpu.race.gate import on_host
from socket_gpu.race.sequences import RaceSequences
from socket_theory.core.checks import bfloat16
from socket_theory.core.hashing import SignHash
from socket_theory.core.rng import Key
from socket_theory.race.attention import race_attention
from socket_theory.race.gradient import race_gradients
from socket_theory.race.gradient_scale import gradient_scale, gradient_tolerance
from socket_theory.testing import TOLERANCES, relative_rms

KEY = Key.from_seed(37)
LEAVES = ("query", "keys", "values", "beta")


@dataclass(frozen=True)
class Case:
    """Shapes of one attention: `planes` is (P, L), `heads` (Hq, Hkv); beta is 30 / P if `steep`, else 1."""

    planes: tuple[int, int]
    head_dim: int
    dtype: str
    causal: bool
    tokens: int = 70
    heads: tuple[int, int] = (2, 1)
    batch: int = 1
    asked: int = 0
    steep: bool = False
    strided: bool = False

    @property
    def beta(self) -> float:
        return 30 / self.planes[0] if self.steep else 1.0

    @property
    def element(self) -> Any:
        return bfloat16() if self.dtype == "bfloat16" else np.dtype(self.dtype)


# Every layout of pieces and groups, both head_dims, every dtype, each causal and not somewhere.
MAIN = Case((4, 4), 64, "bfloat16", True)
INSTANCES = [
    MAIN,
    replace(MAIN, causal=False),
    Case((4, 4), 128, "float32", True),
    Case((5, 5), 64, "float16", True),
    Case((8, 1), 64, "float32", False),
    Case((1, 32), 64, "bfloat16", True),
    Case((2, 3), 128, "bfloat16", False),
    Case((4, 3), 64, "bfloat16", True),
    Case((3, 5), 64, "bfloat16", False),
]
CASES = [
    *INSTANCES,
    *(replace(MAIN, tokens=tokens) for tokens in (1, 63, 64, 65)),
    replace(MAIN, tokens=200, batch=2, heads=(4, 2), strided=True),
    replace(MAIN, heads=(7, 1), steep=True),
    *(replace(INSTANCES[number], steep=True) for number in (2, 3, 4)),
    replace(INSTANCES[1], tokens=200, asked=70, heads=(4, 2), batch=2, strided=True),
    replace(INSTANCES[1], tokens=1, asked=65, heads=(7, 1)),
    replace(INSTANCES[3], tokens=65, heads=(2, 2)),
]


@cache
def inputs(case: Case) -> dict[str, Any]:
    """query, keys, values and the gradient of outputs as NumPy arrays in the case's dtype."""
    rng, (queries, heads) = KEY.generator(), case.heads
    asked = case.batch, queries, case.asked or case.tokens, case.head_dim
    held = case.batch, heads, case.tokens, case.head_dim
    shapes = {"query": asked, "keys": held, "values": held, "above": asked}
    return {name: rng.standard_normal(shape).astype(case.element) for name, shape in shapes.items()}


def planes(case: Case) -> Any:
    num_planes, num_tables = case.planes
    return SignHash(num_tables, num_planes, case.head_dim).draw(KEY)


@cache
def reference(case: Case) -> tuple[Any, Any, Any]:
    """Value, gradients and their tolerances in float64."""
    query, keys, values, above = (array.astype(np.float64) for array in inputs(case).values())
    given = query, keys, values, planes(case), case.beta
    right = race_gradients(*given, above, case.causal)
    allowed = gradient_tolerance(right, gradient_scale(*given, above, case.causal), case.beta)
    return race_attention(*given, case.causal).value, right, allowed


def opened(cupy: Any, case: Case, *made_by: Any) -> tuple[RaceSequences, Any]:
    """The passes over a case, and the gradient of its outputs; `strided` arrays are views of [B, N, H, D]."""

    def put(array: Any) -> Any:
        if not case.strided:
            return cupy.asarray(array)
        return cupy.asarray(np.ascontiguousarray(array.swapaxes(1, 2))).swapaxes(1, 2)

    query, keys, values, above = map(put, inputs(case).values())
    weights = cupy.asarray(planes(case).weights.astype(np.float32))
    beta = cupy.asarray(np.array(case.beta, np.float32))
    return RaceSequences(query, keys, values, weights, beta, case.causal, *made_by), above


def run(cupy: Any, case: Case) -> RaceSequences:
    passes, above = opened(cupy, case)
    passes.forward()
    passes.backward(above)
    return passes


def value_error(case: Case, passes: RaceSequences) -> float:
    """The error of the value by what is allowed: the rounding floor, or the table's number where there is none."""
    right, found = reference(case)[0], on_host(passes.value).astype(np.float64)
    if case.dtype == "float32" or case.tokens == 1:
        return relative_rms(found, right) / TOLERANCES[case.dtype]
    floor, off = right.astype(case.element).astype(np.float64) - right, found - right
    of_rms = np.sqrt(np.mean(off**2) / np.mean(floor**2))
    return float(max(np.abs(off).max() / (2.5 * np.abs(floor).max()), of_rms / 2))


def gradient_errors(case: Case, passes: RaceSequences) -> dict[str, float]:
    """The largest error of every gradient by its tolerance and, in float16, half of the least number."""
    _, right, allowed = reference(case)
    least = float(np.finfo(np.float16).smallest_subnormal) / 2 if case.dtype == "float16" else 0
    found = {name: on_host(getattr(passes, f"d_{name}")).astype(np.float64) for name in LEAVES}
    off = {name: abs(found[name] - getattr(right, name)) for name in LEAVES}
    return {name: float((off[name] / (getattr(allowed, name) + least)).max()) for name in LEAVES}


def without_token(token: int, of_queries: bool) -> Callable[[pytest.MonkeyPatch], None]:
    """The sums over the buckets of tiles lack the features of a token."""
    file, line = "race/bucket_sums.cu", "size[i] = at < end ? of_row.x : 0;"
    absent = f"size[i] = at < end && (at != {token} || {'!' * of_queries}p.rows) ? of_row.x : 0;"

    def plant(patch: pytest.MonkeyPatch) -> None:
        source = _compile.kernel_source
        assert line in source(file)
        patch.setattr(_compile, "kernel_source", lambda file: source(file).replace(line, absent))

    return plant


def without_total(patch: pytest.MonkeyPatch) -> None:
    """dDen, which the second numbers of rows are, is dropped."""

    def drop(*given: Any) -> None:
        query_gradient_into(*given)
        given[1][..., 1] = 0

    query_gradient_into = sequences.query_gradient_into
    patch.setattr(sequences, "query_gradient_into", drop)


def prefix_for_suffix(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sequences, "add_tiles", lambda sums, behind: bucket_sums.add_tiles(sums, False))


def in_8_bits(patch: pytest.MonkeyPatch) -> None:
    """The features that sums are made of are rounded to bfloat16."""
    patch.setattr(bucket_sums, "PARTS", 1)


@contextmanager
def planted(fault: Callable[[pytest.MonkeyPatch], None]) -> Iterator[None]:
    """Kernels with a fault."""
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        _compile._kernel.cache_clear()
        yield
    _compile._kernel.cache_clear()
