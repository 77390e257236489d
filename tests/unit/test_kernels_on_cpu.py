"""Selection and draws as the kernels' own sources make them, on a CPU: what CI can see of kernels without a GPU.

A C++ compiler builds a kernel with `cuda_on_cpu/cuda.h` in the place of CUDA.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from socket_gpu._compile import kernel_source, macro_options
from socket_theory import Budget, Key, Santa
from socket_theory.numpy_backend import NumpyBackend
from socket_theory.rng import uniform
from socket_theory.selection import rank_keys

FOLDER = Path(__file__).parent / "cuda_on_cpu"
CAPACITY, TILE, THREADS = 2048, 128, 512
SELECT = """
extern "C" bool run(int parts, int rows, const float* scores, const i64* spans, const u64* survivors, u32* counts,
                    u32* floors, u32* status, int* indices, int* lengths, int slots, int capacity, int kept, int sink,
                    int window, i64 tokens, double fraction) {
    return launch(parts, rows, SELECT_THREADS, [=] {
        select_tokens(scores, spans, survivors, counts, floors, status, indices, lengths, slots, rows, capacity, kept,
                      sink, window, tokens, fraction);
    });
}
"""
DRAW = """
extern "C" bool run(int splits, int rows, const float* scores, const float* states, const KV_T* values,
                    const i64* spans, u64* steps, int* draws, float* partial, u32* tickets, u32* status, float* output,
                    float* lse, i64 slots, u64 low, u64 high, int tiles, int samples, int most) {
    return launch(splits, rows, THREADS, [=] {
        draw_values(scores, (const float2*)states, values, spans, steps, draws, partial, tickets, status, output, lse,
                    slots, low, high, tiles, rows, samples, most);
    });
}
"""


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Builds a kernel's source with a function `run` behind it, and gives that function."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler is installed: install g++ or clang++.")

    def made(file: str, run: str, **macros: Any) -> Any:
        folder = tmp_path_factory.mktemp(Path(file).stem)
        source = re.sub(r"extern __shared__ (\w+) (\w+)\[\]", r"static \1 \2[1 << 14]", kernel_source(file))
        (folder / "kernel.cpp").write_text(f'#include "cuda.h"\n{source}\n{run}')
        flags = ["-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-fno-strict-aliasing", f"-I{FOLDER}"]
        command = [compiler, *flags, *macro_options(macros), "kernel.cpp", "-o", "kernel.so"]
        built = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert built.returncode == 0, built.stderr[:4000]
        function = ctypes.CDLL(str(folder / "kernel.so")).run
        function.restype = ctypes.c_bool
        return function

    return made


def pointer(array: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


@pytest.fixture(scope="module")
def select(build: Callable[..., Any]) -> Callable[..., Any]:
    """(indices [K], times that all scores were searched) of scores [N], with a floor and its margin or without."""
    run = build("select.cu", SELECT, PER_THREAD=2, BLOCKS_A_SM=1, WIDTH=4)

    def selected(
        scores: Any, span: tuple[int, int], budget: Budget, parts: int, floor: Any = None, listings: int = 1
    ) -> tuple[Any, int]:
        kept = budget.kept(span[1])
        indices, lengths = np.full((1, kept), -7, np.int32), np.zeros(1, np.int32)
        survivors, counts, status = np.zeros(CAPACITY, np.uint64), np.zeros(3, np.uint32), np.zeros(1, np.uint32)
        floors = None if floor is None else np.array(floor, np.uint32)
        if floors is not None:
            orders = rank_keys(np.where(np.isnan(scores), np.inf, scores)) >> np.uint64(32)
            orders = np.where(np.isnan(scores), 2**32 - 1, orders).astype(np.uint64)
            slots = np.arange(span[0] + budget.sink, sum(span) - budget.window)
            passed = slots[orders[slots] >= floors[0]]
            keys = np.tile(orders[passed] << np.uint64(32) | passed.astype(np.uint64), listings)
            counts[0] = len(keys)
            survivors[: len(keys)] = np.random.default_rng(1).permutation(keys)[:CAPACITY]
        tokens = -1 if budget.tokens is None else budget.tokens
        spans = np.array([span], np.int64)
        arrays = [scores, spans, *(None if floors is None else a for a in (survivors, counts, floors))]
        numbers = [ctypes.c_int(n) for n in (len(scores), CAPACITY, kept, budget.sink, budget.window)]
        ended = run(
            parts,
            1,
            *map(pointer, [*arrays, status, indices, lengths]),
            *numbers,
            ctypes.c_longlong(tokens),
            ctypes.c_double(budget.fraction or 0),
        )
        assert ended, "the kernel does not end"
        assert counts[:2].tolist() == [0, 0] or floors is None
        return indices[0], int(counts[2])

    return selected


def scores_of(kind: str, slots: int, draw: np.random.Generator) -> Any:
    normal = np.abs(draw.standard_normal(slots))
    drawn = {
        "narrow": 1e-3 * np.exp(0.1 * normal),
        "wide": np.exp(20 * normal.clip(0, 4)),
        "few_distinct": draw.integers(0, 3, slots),
        "equal": np.zeros(slots),
        "some_nan": np.where(draw.random(slots) < 0.2, np.nan, normal),
        "all_nan": np.full(slots, np.nan),
    }[kind]
    scores = drawn.astype(np.float32)
    scores[np.isnan(scores)] = np.uint32(0x7FFFFFFF).view(np.float32)  # the NaN that a GPU makes
    return scores


@pytest.mark.parametrize("kind", ["narrow", "wide", "few_distinct", "equal", "some_nan", "all_nan"])
def test_selection_ends_and_is_the_references_whatever_the_floor_is(select: Callable[..., Any], kind: str) -> None:
    draw = np.random.default_rng(3)
    searched = []
    for trial in range(12):
        slots = 32 * int(draw.integers(2, 150))
        start = int(draw.integers(0, slots // 2))
        length = int(draw.integers(40, slots - start + 1)) if slots - start > 40 else slots - start
        scores = scores_of(kind, slots, draw)
        budget = Budget(tokens=int(draw.integers(20, max(21, length))), sink=3, window=7)
        finite = np.where(np.isnan(scores), np.inf, scores)
        threshold = int(np.sort(rank_keys(finite) >> np.uint64(32))[-min(slots, budget.tokens)])
        margin = int(draw.integers(1, 1 << int(draw.integers(1, 28))))
        floors = [None, (2**32 - 1, 1), (max(0, threshold - margin), margin), (int(draw.integers(0, 2**32)), margin)]
        found, times = select(scores, (start, length), budget, 1 + trial % 4, floors[trial % 4])
        searched.append(times)
        expected = NumpyBackend().select(finite[None, None], np.array([[start, length]]), budget, 1)[0, 0]
        np.testing.assert_array_equal(found, expected)
    assert 0 < sum(searched) < 9


@pytest.mark.parametrize("listings", [2, 40, 100])
def test_selection_ends_when_tokens_are_listed_more_than_once(select: Callable[..., Any], listings: int) -> None:
    """As a graph that only scores leaves them; slots that are kept are still in order and in the span."""
    scores = np.random.default_rng(8).standard_normal(320).astype(np.float32)
    for floor in (0x80000000, 0xBF800000, 0xC0000000):  # of scores 0, 1 and 2
        found, _ = select(scores, (20, 250), Budget(tokens=30, sink=3, window=7), 2, (floor, 1 << 20), listings)
        kept = found[(found != -7) & (found != -1)]
        assert (np.diff(kept) > 0).all()
        assert kept[0] == 20
        assert kept[-1] <= 269


@pytest.mark.parametrize("sampler", ["phase_carried", "flash"])
def test_draws_are_the_references(build: Callable[..., Any], sampler: Any) -> None:
    macros = {"MODE": int(sampler == "flash"), "HEAD_DIM": 64, "GROUP": 1, "TILE": TILE, "THREADS": THREADS}
    run = build("value_draws.cu", DRAW, KV_T="__nv_bfloat16", OUT="float", **macros)
    draw, key = np.random.default_rng(5), Key.from_seed(9)
    for length, samples, step in ((1, 3, 0), (127, 1, 1), (129, 64, 2), (1000, 7, 3), (1000, 2000, 2**40)):
        slots, tiles, method = length + 5, -(-length // TILE), Santa(samples, sampler, TILE)
        most = max(samples, tiles) if sampler == "flash" else samples
        logits = (3 * draw.standard_normal(length)).astype(np.float32)
        padded = np.full(tiles * TILE, -np.inf, np.float32)
        padded[:length] = logits
        scores = np.where(np.isinf(padded), np.nan, padded)
        tops = padded.reshape(tiles, TILE).max(axis=1)
        masses = np.exp2(padded.reshape(tiles, TILE) - tops[:, None]).sum(axis=1)
        states = np.stack([tops, masses], axis=1).astype(np.float32)
        values = np.full((slots, 64), np.nan, np.float32)
        values[2 : 2 + length] = draw.standard_normal((length, 64))
        values = (values.view(np.uint32) >> 16 << 16).view(np.float32)
        stored = (values.view(np.uint32) >> 16).astype(np.uint16)
        spans, steps = np.array([[2, length]], np.int64), np.full(1, step, np.uint64)
        draws, output, lse = np.zeros(most, np.int32), np.zeros(64, np.float32), np.zeros(1, np.float32)
        partial, tickets, status = np.zeros((3, 64), np.float32), np.zeros(1, np.uint32), np.zeros(1, np.uint32)
        given = [scores, states, stored, spans, steps, draws, partial, tickets, status, output, lse]
        words = [ctypes.c_ulonglong(word) for word in key.words]
        numbers = [ctypes.c_longlong(slots), *words, *map(ctypes.c_int, (tiles, samples, most))]
        assert run(3, 1, *map(pointer, given), *numbers)
        weights = np.exp2(logits.astype(np.float64) - logits.max())
        uniforms = uniform(key, np.arange(method.num_uniforms(length)), step)
        expected = method.row_weights(weights, uniforms)
        drawn = draws[draws >= 0] - 2
        assert len(drawn) == (max(1, samples // tiles) * tiles if sampler == "flash" else samples)
        assert len(np.setdiff1d(drawn, np.flatnonzero(expected))) <= 1
        np.testing.assert_allclose(output, expected @ values[2 : 2 + length], atol=0.004)
        assert lse[0] == pytest.approx(np.log(2) * (logits.max() + np.log2(weights.sum())), abs=1e-5)
        assert (steps[0], tickets[0], status[0]) == (step + 1, 0, 0)
