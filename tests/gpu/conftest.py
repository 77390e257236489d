"""The GPU of these tests, with the way to it and back, and decode steps of random problems on it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from socket_gpu import missing_requirement
from socket_theory import Budget, Key
from socket_theory.core.backend import operations
from socket_theory.core.cache import Cache
from socket_theory.core.hashing import Planes, SignHash
from socket_theory.core.hashing_method import HashingMethod
from socket_theory.core.method import Method
from socket_theory.socket_lsh.operations import FAMILY
from socket_theory.testing import Problem, random_problem

KEY = Key.from_seed(31)
ON_CPU = os.environ.get("GPU_ON_CPU") == "1"


@cache
def planes_of(num_tables: int, num_planes: int, head_dim: int) -> Planes:
    return SignHash(num_tables, num_planes, head_dim).draw(KEY)


@dataclass(frozen=True)
class Device:
    """CuPy, one backend on it, and what the tests make with them."""

    cupy: Any
    engine: Any
    operations: Any
    """SOCKET's own operations on it."""
    key: Key = KEY

    def put(self, array: Any) -> Any:
        return self.cupy.asarray(array)

    def get(self, array: Any) -> Any:
        return self.cupy.asnumpy(array)

    def problem(self, method: Method, *, head_dim: int = 64, seed: int = 0, spans: Any = None, **shape: Any) -> Problem:
        """A random problem, with this method's planes if it hashes: spans as given, else ragged; NaN outside them."""
        key, shape = KEY.fold_in("seed", seed), shape | {"batch": len(spans) if spans else shape.get("batch", 2)}
        drawn = random_problem(key, num_tables=1, num_planes=1, head_dim=head_dim, **shape)
        hashes = method.sample_type is not None
        planes = planes_of(method.num_tables, method.num_planes, head_dim) if hashes else drawn.planes
        if spans is None:
            return replace(drawn, planes=planes)
        rows = key.generator().standard_normal((2, *drawn.keys.shape))
        for row, (start, length) in enumerate(spans):
            rows[:, row, :, :start] = rows[:, row, :, start + length :] = np.nan
        return Problem(drawn.query, *rows.astype(drawn.keys.dtype), np.array(spans), planes)

    def entry(self, method: HashingMethod, head_dim: int, group: int) -> str:
        """The look-up entries that the range rule gives a method's soft scores: "bytes" or "float"."""
        from socket_gpu.socket_lsh.codes import CodeLayout
        from socket_gpu.socket_lsh.score import Collision

        layout = CodeLayout(method.num_tables, method.num_planes)
        return Collision(method.query_map, method.temperature).entry(layout, head_dim, group)

    def prepare(self, method: Method, problem: Problem, **options: Any) -> Cache:
        spans = {"kv_start": problem.spans[:, 0], "kv_len": problem.spans[:, 1]}
        index = {"sample": problem.planes} if method.sample_type is not None else {}
        keys, values = self.put(problem.keys), self.put(problem.values)
        return method.prepare(keys, values, backend=self.engine, **index, **spans, **options)

    def plan(self, cache: Cache, query: Any, budget: Budget, **options: Any) -> Any:
        from socket_gpu.socket_lsh.plan import DecodePlan

        return DecodePlan(cache, num_qo_heads=query.shape[1], budget=budget, **options)

    def santa_plan(self, cache: Cache, query: Any, **options: Any) -> Any:
        from socket_gpu.santa.plan import SantaPlan

        return SantaPlan(cache, num_qo_heads=query.shape[1], **({"key": self.key} | options))

    def captured(self, call: Callable[[], object]) -> Callable[[], None]:
        """A replay of what `call` launches, on the current stream; call it once before, so that it compiles nothing."""
        cupy = self.cupy
        cupy.cuda.Device().synchronize()
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            call()
            graph = stream.end_capture()
        return lambda: graph.launch(cupy.cuda.get_current_stream())


@pytest.fixture(scope="module", autouse=True)
def device(request: pytest.FixtureRequest) -> Device:
    """Skips with the sentence that names what is missing here; under GPU_ON_CPU=1 a CPU stands in for a GPU."""
    missing = missing_requirement()
    if missing and ON_CPU:
        engine = request.getfixturevalue("gpu_on_cpu")
        return Device(engine.cupy, engine, operations(FAMILY, engine))
    if missing:
        pytest.skip(missing)
    import cupy

    from socket_gpu.registry import CupyBackend

    engine = CupyBackend()
    return Device(cupy, engine, operations(FAMILY, engine))
