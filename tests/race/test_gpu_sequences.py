"""The kernels of whole sequences on a CPU: values and gradients of the float64 reference, and faults that show."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ml_dtypes", reason="pip install 'socket-theory[test]'")

from sequence_cases import (
    CASES,
    INSTANCES,
    MAIN,
    Case,
    gradient_errors,
    in_8_bits,
    opened,
    planted,
    prefix_for_suffix,
    run,
    value_error,
    without_token,
    without_total,
)

from socket_gpu.race import buckets, limits
from socket_gpu.race.sequences import RaceSequences
from socket_theory.core.checks import bfloat16

GUARD = 4096


class Guarded:
    """Makes arrays between guards of 4096 bytes: what is written beyond an array shows."""

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        self.made: list[tuple[Any, int]] = []

    def empty(self, name: str, shape: tuple[int, ...], dtype: str) -> Any:
        element = np.dtype(bfloat16() if dtype == "bfloat16" else dtype)
        count = math.prod(shape) * element.itemsize
        memory = self.cupy.empty(count + 2 * GUARD, np.uint8)
        self.made.append((memory, count))
        return memory[GUARD : GUARD + count].view(element).reshape(shape)

    def check(self) -> None:
        assert all((memory[:GUARD] == 255).all() and (memory[GUARD + n :] == 255).all() for memory, n in self.made)


@pytest.fixture(scope="module")
def cupy(gpu_on_cpu: Any, cupy_on_cpu: ModuleType) -> Iterator[Any]:
    """The module that stands in for CuPy, with the kernels of all cases built, several at a time."""
    programs: dict[tuple[str, str], None] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cupy_on_cpu.Kernel, "__call__", lambda kernel, *_, **__: programs.setdefault(kernel.program))
        for case in INSTANCES:
            run(gpu_on_cpu.cupy, case)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda program: cupy_on_cpu.built(*program), programs))
    return gpu_on_cpu.cupy


@cache
def finished(cupy: Any, case: Case) -> RaceSequences:
    guarded = Guarded(cupy)
    passes, above = opened(cupy, case, guarded.empty)
    passes.forward()
    passes.backward(above)
    guarded.check()
    return passes


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_are_those_of_the_reference(cupy: Any, case: Case) -> None:
    assert value_error(case, finished(cupy, case)) <= 1


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_those_of_the_reference(cupy: Any, case: Case) -> None:
    errors = gradient_errors(case, finished(cupy, case))
    assert max(errors.values()) <= 1, errors


@pytest.mark.parametrize("tiles", [1, 2])
def test_tiles_of_several_chunks_give_the_same(cupy: Any, tiles: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(MAIN, tokens=200, batch=2, heads=(4, 2), strided=True)
    monkeypatch.setattr(buckets, "_TILES", 3 * tiles)
    passes = run(cupy, case)
    assert passes.sums.tiles == tiles
    assert value_error(case, passes) <= 1
    assert max(gradient_errors(case, passes).values()) <= 1


def test_the_same_numbers_give_the_same_bits_and_new_ones_others(cupy: Any) -> None:
    passes, above = opened(cupy, MAIN)
    results = []
    for step in range(3):
        passes.forward()
        passes.backward(above)
        results.append(
            [np.asarray(a).tobytes() for a in (passes.value, passes.d_query, passes.d_keys, passes.d_values)]
        )
        if step:
            passes.of.query[...] = -passes.of.query
    assert results[0] == results[1]
    assert all(first != last for first, last in zip(results[0], results[2], strict=True))


def test_what_the_kernels_do_not_take_is_refused_in_a_sentence(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def ones(*shape: int, dtype: Any = np.float16) -> Any:
        return cupy.ones(shape, dtype)

    good = {
        "query": ones(1, 4, 9, 64),
        "keys": ones(1, 2, 9, 64),
        "values": ones(1, 2, 9, 64),
        "planes": ones(4, 4, 64, dtype=np.float32),
        "beta": cupy.ones((), np.float32),
        "causal": True,
    }
    RaceSequences(**good)

    def refused(pattern: str, kind: type[Exception] = ValueError, **changed: Any) -> None:
        with pytest.raises(kind, match=pattern):
            RaceSequences(**(good | changed))

    wide = {name: good[name].astype(np.float64) for name in ("query", "keys", "values")}
    refused("have dtype float64: pass bfloat16, float16, float32", TypeError, **wide)
    refused("keys has dtype float32: pass float16", TypeError, keys=ones(1, 2, 9, 64, dtype=np.float32))
    refused("keys is of type ndarray: pass a CuPy array", TypeError, keys=np.ones((1, 2, 9, 64), np.float16))
    refused("planes has dtype float64: pass float32", TypeError, planes=ones(4, 4, 64, dtype=np.float64))
    refused("beta has dtype float64: pass float32", TypeError, beta=cupy.ones((), np.float64))
    refused(r"beta has shape \(1,\)", beta=ones(1, dtype=np.float32))
    refused("causal=1", TypeError, causal=1)
    refused("do not fit", values=ones(1, 2, 8, 64))
    refused("do not fit", planes=ones(4, 4, 128, dtype=np.float32))
    refused("were given: pass .B, Hq, T, D.", query=ones(4, 9, 64))
    refused("no axis of 0", query=ones(1, 4, 0, 64))
    refused("the query has 3 heads and keys have 2", query=ones(1, 3, 9, 64))
    refused("8 causal queries were given for 9 keys: pass as many of both", query=ones(1, 4, 8, 64))
    refused("at most 32 planes in all and 256 features", planes=ones(7, 5, 64, dtype=np.float32))
    refused("at most 32 planes in all and 256 features", planes=ones(3, 7, 64, dtype=np.float32))
    refused("70000 sequences times heads", **{n: ones(70000, 1, 1, 64) for n in ("query", "keys", "values")})
    narrow = {name: ones(1, 2, 9, 32) for name in ("query", "keys", "values")}
    refused("vectors of length 32 were given", planes=ones(4, 4, 32, dtype=np.float32), **narrow)
    refused("strides", keys=ones(1, 2, 64, 9).swapaxes(2, 3))
    refused("strides", keys=ones(1, 2, 9, 65)[..., :64])
    refused("keys starts between multiples of 16 bytes", keys=ones(1, 2, 9, 72)[..., 1:65])
    with pytest.raises(ValueError, match=r"above has shape \(1, 4, 8, 64\): pass \(1, 4, 9, 64\)"):
        RaceSequences(**good).backward(ones(1, 4, 8, 64))
    monkeypatch.setattr(limits, "shared_memory_limit", lambda: 48 * 1024)
    refused(r"4 tables of 4 planes need \d+ bytes of shared memory with a head_dim of 64 in float16 and causal")
    monkeypatch.setattr(limits, "compute_capability", lambda: 75)
    refused("compute capability 7.5: run on one of 8.0 or more")


FAULTS = {
    "a key of the first tile is dropped": (without_token(63, False), {"value", "query"}),
    "a query of the second tile is dropped": (without_token(64, True), {"keys", "values"}),
    "a prefix for a suffix": (prefix_for_suffix, {"keys", "values"}),
    "dDen is dropped": (without_total, {"keys"}),
    "features of 8 bits": (in_8_bits, {"values"}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_exceeds_the_tolerance(cupy: Any, name: str) -> None:
    fault, seen = FAULTS[name]
    case = replace(MAIN, tokens=150)
    with planted(fault):
        passes = run(cupy, case)
    errors = gradient_errors(case, passes) | {"value": value_error(case, passes)}
    assert seen <= {name for name, error in errors.items() if error > 1}, errors
