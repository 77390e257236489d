"""Every kernel once on small odd shapes, for compute-sanitizer: `compute-sanitizer python tests/gpu/sanitize.py`.

CuPy's memory pool is off, so that every array is an allocation of its own and an overrun of one element shows.
`--plant overrun`, `race` or `barrier` launches a kernel with that fault instead, to see that it is reported.
"""

from __future__ import annotations

import argparse
import pkgutil
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import cupy
import numpy as np

import socket_gpu
from socket_gpu.race import buckets
from socket_gpu.race.plan import RacePlan
from socket_gpu.race.sequences import RaceSequences
from socket_gpu.registry import CupyBackend
from socket_gpu.santa.plan import SantaPlan
from socket_gpu.socket_lsh.plan import DecodePlan
from socket_theory import Budget, HardLSH, Key, PagedRows, Race, Santa, Socket
from socket_theory.core.checks import bfloat16
from socket_theory.core.hashing_method import HashingMethod

KEY = Key.from_seed(53)
PLANTED = {
    "overrun": 'extern "C" __global__ void overrun(float* x, int n) { x[n] = 1; }',
    "race": """extern "C" __global__ void race(float* x, int n) {
        __shared__ float y[64];
        y[threadIdx.x] = threadIdx.x;
        x[threadIdx.x] = y[63 - threadIdx.x];
    }""",
    "barrier": """extern "C" __global__ void barrier(float* x, int n) {
        if (threadIdx.x < 16) __syncthreads();
        x[threadIdx.x] = n;
    }""",
}
# Method, head_dim, dtype, query heads a KV head, group of the budget: coarse, float and hard look-ups, more tables than
# a launch takes, centred and narrow codes, every head_dim and element of attention.
STEPS = [
    (Socket.as_released(), 128, "bfloat16", 4, "query_head"),
    (Socket.as_released(), 128, "bfloat16", 4, "kv_head"),
    (Socket(num_planes=16, num_tables=7, temperature=0.05), 64, "float16", 3, "query_head"),
    (Socket(num_planes=1, num_tables=300, query_map="linear", center_keys=True), 64, "float32", 2, "kv_head"),
    (Socket(num_planes=6, num_tables=9, value_weight=True), 256, "bfloat16", 1, "query_head"),
    (Socket(num_planes=3, num_tables=5, query_map="tanh"), 16, "float64", 5, "query_head"),
    (HardLSH(num_planes=4, num_tables=33), 256, "float32", 7, "query_head"),
]


# Method, head_dim, dtype, query heads a KV head: both samplers, head_dims, elements, more and fewer draws than tiles.
SANTA_STEPS = [
    (Santa(50), 128, "bfloat16", 4),
    (Santa(3), 64, "float16", 8),
    (Santa(7, "flash", 64), 64, "bfloat16", 3),
    (Santa(2, "flash", 96), 128, "float16", 1),
]


# Method, head_dim, dtype, length and dtype of values, query heads a KV head: slices that end between 32, as many planes
# and as many buckets as there may be, every element.
RACE_STEPS = [
    (Race(4, 4), 128, "bfloat16", 128, "bfloat16", 4),
    (Race(3, 5), 48, "float16", 40, "float32", 7),
    (Race(1, 2048), 16, "float32", 8, "float16", 1),
    (Race(12, 1, 6.0), 64, "float64", 34, "float64", 2),
]


# Planes, tables, head_dim, dtype, causal, query heads a KV head: one group of features or more, every element.
RACE_SEQUENCES = [
    (4, 4, 128, "bfloat16", True, 2),
    (5, 5, 64, "float16", False, 1),
    (8, 1, 64, "bfloat16", True, 2),
    (4, 3, 64, "bfloat16", True, 1),
    (2, 3, 64, "float32", True, 3),
    (4, 4, 128, "bfloat16", False, 1),
]


def record_launches() -> set[str]:
    """A set that will hold the name of every kernel that the launchers fetch from now on."""
    seen: set[str] = set()

    def recording(compiled: Callable[..., Any]) -> Callable[..., Any]:
        def fetch(file: str, name: str, *types: str, **config: Any) -> Any:
            seen.add(name)
            return compiled(file, name, *types, **config)

        return fetch

    for found in pkgutil.walk_packages(socket_gpu.__path__, "socket_gpu."):
        module = import_module(found.name)
        if hasattr(module, "compiled") and not found.name.endswith("_compile"):
            module.compiled = recording(module.compiled)
    return seen


def take_steps(method: HashingMethod, head_dim: int, dtype: str, group: int, share: str) -> None:
    """An eager and three planned steps over two ragged sequences, with appends, one of which does not fit."""
    draw, element = KEY.generator(), bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    query = cupy.asarray(draw.standard_normal((2, 2 * group, head_dim)).astype(element))
    keys, values = (cupy.asarray(a.astype(element)) for a in draw.standard_normal((2, 2, 2, 147, head_dim)))
    spans = {"kv_start": [0, 37], "kv_len": [147, 70]}
    cache = method.prepare(keys, values, key=KEY, backend=CupyBackend(), capacity=151, **spans)
    budget = Budget(tokens=61, sink=3, window=5, per=share)
    method.attend(query, cache, budget=budget)
    plan = DecodePlan(cache, num_qo_heads=2 * group, budget=budget)
    for count in (1, 3, 1):
        plan.run(query)
        plan.append(keys[:, :, :count].copy(), values[:, :, :count].copy())
    if plan.survivors:
        plan.survivors.floors[:, 0] = 0
    plan.run(query)


def take_santa_steps(method: Santa, head_dim: int, dtype: str, group: int) -> None:
    """Three planned steps over two sequences, the second of one token, with appends, one of which does not fit."""
    draw, element = KEY.generator(), bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    query = cupy.asarray(draw.standard_normal((2, 2 * group, head_dim)).astype(element))
    keys, values = (cupy.asarray(a.astype(element)) for a in draw.standard_normal((2, 2, 2, 147, head_dim)))
    cache = method.prepare(keys, values, backend=CupyBackend(), capacity=151, kv_start=[0, 37], kv_len=[147, 1])
    plan = SantaPlan(cache, num_qo_heads=2 * group, key=KEY)
    for count in (1, 3, 1):
        plan.run(query)
        plan.append(keys[:, :, :count].copy(), values[:, :, :count].copy())


def take_race_steps(method: Race, head_dim: int, dtype: str, value_dim: int, value_dtype: str, group: int) -> None:
    """Three planned steps over two sequences, the second of one token, with appends, one of which does not fit."""
    draw = KEY.generator()
    types = [bfloat16() if name == "bfloat16" else np.dtype(name) for name in (dtype, value_dtype)]
    query = cupy.asarray(draw.standard_normal((2, 2 * group, head_dim)).astype(types[0]))
    keys = cupy.asarray(draw.standard_normal((2, 2, 47, head_dim)).astype(types[0]))
    values = cupy.asarray(draw.standard_normal((2, 2, 47, value_dim)).astype(types[1]))
    cache = method.prepare(keys, values, key=KEY, backend=CupyBackend(), capacity=85, kv_start=[0, 37], kv_len=[47, 1])
    plan = RacePlan(cache, num_qo_heads=2 * group)
    for count in (1, 35, 5):
        plan.run(query)
        plan.append(keys[:, :, :count].copy(), values[:, :, :count].copy())


def take_whole_sequences(planes: int, tables: int, head_dim: int, dtype: str, causal: bool, group: int) -> None:
    """Both passes over two sequences of several chunks in a tile and, not causal, with more queries than keys."""
    draw, element = KEY.generator(), bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    asked, held = (2, group, 200 if causal else 260, head_dim), (2, 1, 200, head_dim)
    query, keys, values, above = (
        cupy.asarray(draw.standard_normal(shape).astype(element)) for shape in (asked, held, held, asked)
    )
    weights = cupy.asarray(draw.standard_normal((tables, planes, head_dim)).astype(np.float32))
    buckets._TILES = 1
    passes = RaceSequences(query, keys, values, weights, cupy.ones((), np.float32), causal)
    passes.forward()
    passes.backward(above)


def take_steps_over_pages() -> None:
    """Steps of either family over shuffled pages of 7 slots, with tokens of their owner, the last beyond the pages."""
    draw = KEY.generator()
    query = cupy.asarray(draw.standard_normal((2, 4, 64)).astype(np.float16))
    pages = [cupy.asarray(a.astype(np.float16)) for a in draw.standard_normal((2, 10, 2, 7, 64))]
    rows = PagedRows(*pages, np.array([[3, 1, 4, 9], [3, 2, 6, 0]]))
    for method in (Socket(num_planes=4, num_tables=9, value_weight=True), Santa(5), Santa(5, "flash", 32)):
        needed = {} if method.sample_type is None else {"key": KEY}
        step = {"budget": Budget(tokens=9)} if "budget" in method.takes else {"key": KEY}
        plan = method.prepare(rows, kv_start=[0, 3], kv_len=[23, 19], **needed).plan(4, **step)
        for count in (2, 3, 1):
            plan.run(query)
            plan.append(rows, tokens=count)


def select_long_lists() -> None:
    """A plan whose survivors fill more than the registers, and then more than their list."""
    draw = KEY.generator()
    query, keys = (cupy.asarray(draw.standard_normal((1, 2, *n, 16)).astype(np.float32)) for n in ((), (12_000,)))
    cache = Socket.as_released().prepare(keys, keys, key=KEY, backend=CupyBackend())
    plan = DecodePlan(cache, num_qo_heads=2, budget=Budget(tokens=100, sink=3, window=5))
    plan.run(query)
    for reached in (5000, 12_000):
        floor = cupy.sort(plan.totals[0, :, :12_000], axis=1)[:, -reached].copy()
        plan.survivors.floors[:, 0] = floor.view(np.uint32) | np.uint32(2**31)
        plan.run(query)


def select_wide_rows() -> None:
    """Rows of more slots than a block marks at a time, all scores tied."""
    scores, spans = cupy.zeros((1, 4, 140_001), np.float32), np.array([[3, 139_990]])
    CupyBackend().select(scores, spans, Budget(tokens=5000, sink=7, window=9), 2)
    CupyBackend().select(scores, spans, Budget(fraction=0.9, per="kv_head"), 2)


def launch_planted(name: str) -> None:
    kernel, array = cupy.RawKernel(PLANTED[name], name), cupy.zeros(64, np.float32)
    kernel((1,), (1 if name == "overrun" else 64,), (array, np.int32(64)))
    cupy.cuda.Device().synchronize()


def launch_every_kernel() -> None:
    seen = record_launches()
    for step in STEPS:
        take_steps(*step)
    for santa_step in SANTA_STEPS:
        take_santa_steps(*santa_step)
    for race_step in RACE_STEPS:
        take_race_steps(*race_step)
    for sequences in RACE_SEQUENCES:
        take_whole_sequences(*sequences)
    take_steps_over_pages()
    select_long_lists()
    select_wide_rows()
    cupy.cuda.Device().synchronize()
    pattern = r"__global__ void (?:__launch_bounds__\([^)]*\))?\s*(\w+)\("
    sources = Path(socket_gpu.__file__).parent.glob("*/*.cu")
    missed = {name for file in sources for name in re.findall(pattern, file.read_text())} - seen
    if missed:
        raise SystemExit(f"kernels that no step launched: {', '.join(sorted(missed))}. Add a step that does.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plant", choices=sorted(PLANTED))
    plant = parser.parse_args().plant
    cupy.cuda.set_allocator(None)
    cupy.cuda.set_pinned_memory_allocator(None)
    if plant:
        launch_planted(plant)
    else:
        launch_every_kernel()


if __name__ == "__main__":
    main()
