"""The methods and the backends that the contract tests run over, and how a step is made with either."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import socket_theory as st
from socket_gpu import missing_requirement
from socket_theory import Budget, Cache, Estimate, Key
from socket_theory.core.backend import Backend, resolve_backend
from socket_theory.core.method import Method
from socket_theory.core.sampler import Sampler
from socket_theory.testing import assert_close

KEY = Key.from_seed(11)
BUDGET = Budget(tokens=20, sink=3, window=5)

METHODS: tuple[Method, ...] = (
    st.Dense(),
    st.OracleTopK(),
    st.Window(),
    st.RandomTokens(),
    st.HardLSH(num_planes=4, num_tables=20),
    st.Socket(num_tables=12),
    st.Socket(num_tables=12, value_weight=True, center_keys=True, query_map="tanh"),
    st.SocketSampling(num_tables=12, num_samples=40),
    st.SocketSampling(num_tables=12, num_samples=40, value_aware=True),
    *(st.Santa(num_samples=9, sampler=sampler) for sampler in ("systematic", "stratified", "iid")),
    *(st.Santa(9, sampler, tile_len=7) for sampler in ("phase_carried", "flash", "floor_one", "biased_prop")),
    st.Bernoulli(num_vectors=5),
    st.Bernoulli(num_vectors=5, query_sampler="iid", shared_query=True),
    st.BernoulliSanta(num_samples=9, num_vectors=5),
    st.Race(num_planes=3, num_tables=5, beta=2.0),
)
"""Every contract holds for each of these: a new method is a row here, and nothing else."""

READERS = tuple({type(method): method for method in METHODS}.values())

# What a test that takes an argument of this name runs over.
KINDS: dict[str, Callable[[Method], bool]] = {
    "method": lambda method: True,
    # Those whose steps read keys or values, and those that keep sums over tokens alone.
    "keeping": lambda method: method.keeps_rows,
    "summing": lambda method: not method.keeps_rows,
    # Of those that read rows one of each class, where settings change nothing that a test is about.
    "reader": lambda method: method in READERS and method.keeps_rows,
    "selector": lambda method: "budget" in method.takes,
    "drawing": lambda method: "key" in method.takes,
    "undrawn": lambda method: "key" not in method.takes,
    "headwise": lambda method: not getattr(method, "shared_query", False),
    "additive": lambda method: method.takes <= {"sm_scale"} or hasattr(method, "expectation"),
    "sampler": lambda method: getattr(type(method), "scored_query", None) is Sampler.scored_query,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marks = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    given = {name for names in marks for name in ([names] if isinstance(names, str) else names)}
    for name, belongs in KINDS.items():
        if name in metafunc.fixturenames and name not in given:
            metafunc.parametrize(name, [m for m in METHODS if belongs(m)], ids=lambda method: type(method).__name__)


@dataclass(frozen=True)
class Device:
    """A backend with the way to it and back."""

    engine: Backend
    put: Callable[[Any], Any]
    get: Callable[[Any], Any]
    score_error: float
    """RMS, in standard deviations over tokens: float32 in the reference, byte look-up tables on the GPU."""
    key: Key = KEY
    budget: Budget = BUDGET

    def arrays(
        self,
        batch: int = 3,
        num_qo_heads: int = 6,
        num_kv_heads: int = 2,
        slots: int = 60,
        head_dim: int = 16,
        dtype: str = "float32",
        seed: int = 0,
    ) -> tuple[Any, Any, Any]:
        """A query, keys and values on the host."""
        draw = KEY.fold_in("arrays", seed).generator()
        query = 2 * draw.standard_normal((batch, num_qo_heads, head_dim))
        keys, values = draw.standard_normal((2, batch, num_kv_heads, slots, head_dim))
        return query.astype(dtype), keys.astype(dtype), values.astype(dtype)

    def drawn_from(self, method: Method, **options: Any) -> dict[str, Any]:
        """What `prepare` and `prefill` need beside keys and values: a key for methods that draw a sample."""
        needed = {} if method.sample_type is None or "sample" in options else {"key": KEY}
        return {"backend": self.engine} | needed | options

    def prepare(self, method: Method, keys: Any, values: Any = None, **options: Any) -> Cache:
        """A cache of host arrays, or of rows of another owner."""
        given = [self.put(array) if isinstance(array, np.ndarray) else array for array in (keys, values)]
        return method.prepare(*given, **self.drawn_from(method, **options))

    def step_options(self, method: Method, **options: Any) -> dict[str, Any]:
        """What `attend` needs beside query and cache, of what the method takes."""
        used = {"budget": BUDGET, "key": KEY} | options
        return {name: value for name, value in used.items() if name not in ("budget", "key") or name in method.takes}

    def attend(self, method: Method, query: Any, cache: Cache, **options: Any) -> Estimate:
        return method.attend(self.put(query), cache, **self.step_options(method, **options))

    def same(self, left: Estimate, right: Estimate, dtype: str = "float32") -> None:
        """Equal tokens, and values and lse within the tolerance of `dtype`."""
        np.testing.assert_array_equal(self.get(left.indices), self.get(right.indices))
        assert_close(self.get(left.value), self.get(right.value), dtype)
        assert_close(self.get(left.lse), self.get(right.lse), dtype)

    def equal(self, left: Estimate, right: Estimate) -> None:
        """Equal bits."""
        for name in ("indices", "value", "lse"):
            np.testing.assert_array_equal(self.get(getattr(left, name)), self.get(getattr(right, name)), err_msg=name)


@pytest.fixture(params=["numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Device:
    if request.param == "numpy":
        return Device(resolve_backend("numpy"), np.asarray, np.asarray, 1e-6)
    if os.environ.get("GPU_ON_CPU") == "1":
        engine = request.getfixturevalue("gpu_on_cpu")
        return Device(engine, engine.cupy.asarray, engine.cupy.asnumpy, 2e-2)
    missing = missing_requirement()
    if missing:
        pytest.skip(missing)
    import cupy

    try:
        return Device(resolve_backend("cupy"), cupy.asarray, cupy.asnumpy, 2e-2)
    except RuntimeError as error:
        pytest.skip(str(error))
