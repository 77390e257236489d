"""`Dense` and `OracleTopK` on a backend against the reference: steps, growth, truncation and reordering."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.backend import Backend
from socket_theory.core.baselines import Dense, OracleTopK
from socket_theory.core.cache import Cache
from socket_theory.core.estimate import Estimate
from socket_theory.core.method import Method
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.core.selection import Budget
from socket_theory.testing.faults import ADDED, BUDGETS, SM_SCALE, added_tokens, naming, on_host, require_state
from socket_theory.testing.problem import Problem

Array = NDArray[Any]


def check_methods(backend: Backend, problem: Problem) -> None:
    """Dense and OracleTopK over a cache as prepared, appended to, truncated and taken from, and once more as it was."""
    methods: tuple[tuple[Method, Budget | None], ...] = (
        (Dense(), None),
        *((OracleTopK(), budget) for budget in BUDGETS),
    )
    for method, budget in methods:
        for capacity in (None, problem.keys.shape[2] + ADDED):
            runs = (_steps(engine, method, budget, problem, capacity) for engine in (backend, NumpyBackend()))
            with naming(type(method).__name__):
                for (what, found), (_, expected) in zip(*runs, strict=True):
                    about = f"of {method} with {budget} and capacity={capacity} over a cache {what}"
                    if not np.array_equal(on_host(backend, found.indices), expected.indices):
                        raise AssertionError(f"the selection {about} differs.")
                    pair = (found.value, found.lse), (expected.value, expected.lse)
                    require_state(backend, *pair, problem.query.dtype, about)


def _steps(
    backend: Backend, method: Method, budget: Budget | None, problem: Problem, capacity: int | None
) -> Iterator[tuple[str, Estimate]]:
    put, batch = backend.to_device, len(problem.keys)

    def step(cache: Cache, order: Any) -> Estimate:
        return method.attend(put(problem.query[order]), cache, budget=budget, sm_scale=SM_SCALE)

    whole, order = np.arange(batch), np.array([1, 0, 1]) % batch
    keys, values = (put(array.copy()) for array in (problem.keys, problem.values))
    start, length = problem.spans.T
    cache = method.prepare(keys, values, kv_start=start, kv_len=length, capacity=capacity, backend=backend)
    yield "as prepared", step(cache, whole)
    grown = cache.append(*(put(array) for array in added_tokens(problem)))
    yield "appended to", step(grown, whole)
    yield "truncated", step(grown.truncate(np.maximum(1, length // 2)), whole)
    yield "of taken sequences", step(grown.take(order), order)
    yield "after an append to it", step(cache, whole)
