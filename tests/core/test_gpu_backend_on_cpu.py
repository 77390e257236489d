"""The GPU backend with its kernels on a CPU: its contract, and rows that it does not own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from socket_gpu.core.plan import PlannedStep
from socket_gpu.core.select_tokens import sum_group_into
from socket_theory import BorrowedRows, Budget, Dense, Key, OracleTopK, PagedRows
from socket_theory.core.selection import sum_group
from socket_theory.testing import assert_close, check_backend, random_problem

KEY = Key.from_seed(31)


def test_the_public_contract_holds(gpu_on_cpu: Any) -> None:
    check_backend(gpu_on_cpu, random_problem(Key.from_seed(1), slots=97))


def test_a_group_is_added_in_head_order_and_keeps_subnormal_sums(gpu_on_cpu: Any) -> None:
    scores = np.array([[[1e8], [1.0], [-1e8], [3e-45], [3e-45], [0.0]]], np.float32)
    total = gpu_on_cpu.cupy.empty((1, 2, 1), np.float32)
    sum_group_into(total, gpu_on_cpu.cupy.asarray(scores))
    np.testing.assert_array_equal(np.asarray(total)[0], sum_group(scores[0], 2))


def rows_of_another(gpu: Any, kind: Any) -> tuple[Any, Any]:
    """Keys and values of one sequence of 40 slots, as arrays on the host and as rows of a kind on the device."""
    arrays = np.random.default_rng(2).standard_normal((2, 1, 2, 40, 16)).astype(np.float32)
    if kind is BorrowedRows:
        return arrays, BorrowedRows(*(gpu.cupy.asarray(a.swapaxes(1, 2).copy()).swapaxes(1, 2) for a in arrays))
    order = np.random.default_rng(3).permutation(5)
    pages = []
    for array in arrays:
        held = np.empty((5, 2, 8, 16), np.float32)
        held[order] = array[0].reshape(2, 5, 8, 16).swapaxes(0, 1)
        pages.append(gpu.cupy.asarray(held))
    return arrays, PagedRows(*pages, order[None])


@pytest.mark.parametrize("kind", [BorrowedRows, PagedRows])
@pytest.mark.parametrize("method", [Dense(), OracleTopK()])
def test_rows_of_another_owner_are_read_where_they_are(gpu_on_cpu: Any, kind: Any, method: Any) -> None:
    arrays, rows = rows_of_another(gpu_on_cpu, kind)
    query = np.random.default_rng(4).standard_normal((1, 4, 16)).astype(np.float32)
    budget = {"budget": Budget(tokens=9, sink=2)} if "budget" in method.takes else {}
    cache = method.prepare(rows, kv_len=30, backend=gpu_on_cpu)
    grown = cache.append(rows, tokens=3)
    for held, length in ((cache, 30), (grown, 33)):
        expected = method.attend(query, method.prepare(*arrays, kv_len=length), **budget)
        found = method.attend(gpu_on_cpu.cupy.asarray(query), held, **budget)
        np.testing.assert_array_equal(np.asarray(found.indices), expected.indices)
        assert_close(np.asarray(found.value), expected.value, "float32")
        assert_close(np.asarray(found.lse), expected.lse, "float32")


@pytest.mark.parametrize("kind", [BorrowedRows, PagedRows])
def test_a_plan_refuses_rows_of_another_owner(gpu_on_cpu: Any, kind: Any) -> None:
    _, rows = rows_of_another(gpu_on_cpu, kind)
    with pytest.raises(TypeError, match=rf"reads {kind.__name__} and .*: pass a cache prepared from arrays"):
        PlannedStep(Dense().prepare(rows, backend=gpu_on_cpu), 4, None, None)
