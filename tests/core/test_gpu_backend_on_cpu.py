"""The GPU backend with its kernels on a CPU: its contract, and rows that it does not own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from socket_gpu.core.plan import PlannedStep
from socket_gpu.core.select_tokens import sum_group_into
from socket_theory import BorrowedRows, Budget, Dense, Key, OracleTopK, PagedRows, Santa, Socket
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


def rows_of_another(gpu: Any, kind: Any, head_dim: int = 16, dtype: Any = np.float32) -> tuple[Any, Any]:
    """Keys and values of one sequence of 40 slots, as arrays on the host and as rows of a kind on the device."""
    arrays = np.random.default_rng(2).standard_normal((2, 1, 2, 40, head_dim)).astype(dtype)
    if kind is BorrowedRows:
        return arrays, BorrowedRows(*(gpu.cupy.asarray(a.swapaxes(1, 2).copy()).swapaxes(1, 2) for a in arrays))
    order = np.random.default_rng(3).permutation(5)
    pages = []
    for array in arrays:
        held = np.empty((5, 2, 8, head_dim), dtype)
        held[order] = array[0].reshape(2, 5, 8, head_dim).swapaxes(0, 1)
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
@pytest.mark.parametrize(
    "method",
    [Socket(num_tables=5, num_planes=4, value_weight=True), Santa(9)],
    ids=lambda method: type(method).__name__,
)
def test_a_plan_has_the_bits_of_one_on_copies(gpu_on_cpu: Any, kind: Any, method: Any) -> None:
    cupy = gpu_on_cpu.cupy
    (keys, values), rows = rows_of_another(gpu_on_cpu, kind, head_dim=64, dtype=np.float16)
    query = cupy.asarray(np.random.default_rng(4).standard_normal((1, 4, 64)).astype(np.float16))
    sample = {} if method.sample_type is None else {"key": KEY}
    step = {"budget": Budget(tokens=9, sink=2)} if "budget" in method.takes else {"key": KEY}
    mine = method.prepare(rows, kv_len=30, backend=gpu_on_cpu, **sample).plan(4, **step)
    copies = method.prepare(cupy.asarray(keys), cupy.asarray(values), kv_len=30, backend=gpu_on_cpu, **sample)
    theirs = copies.plan(4, **step)
    for asked in (query, -query):
        outputs = [[np.asarray(array).copy() for array in plan.run(asked)] for plan in (mine, theirs)]
        for left, right in zip(*outputs, strict=True):
            np.testing.assert_array_equal(left, right)
        mine.append(rows, tokens=3)
        theirs.append(*(cupy.asarray(array[:, :, 30:33].copy()) for array in (keys, values)))
        mine.check()


def test_a_plan_refuses_rows_that_its_kernels_cannot_read(gpu_on_cpu: Any) -> None:
    keys = gpu_on_cpu.cupy.asarray(np.ones((1, 2, 40, 32), np.float32))
    cache = Dense().prepare(BorrowedRows(keys[..., ::2], keys[..., ::2]), backend=gpu_on_cpu)
    with pytest.raises(ValueError, match=r"keys lie at strides of .*: pass rows of neighbouring elements"):
        PlannedStep(cache, 4, None, None)
