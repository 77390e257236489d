"""The GPU backend with its kernels on a CPU: its contract, and rows that it does not own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from socket_gpu.core.plan import PlannedStep
from socket_gpu.core.rows import DeviceRows
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
    zeros = gpu_on_cpu.cupy.zeros
    keys, few = zeros((1, 2, 40, 32), np.float32), zeros(16, np.float32)
    far = np.lib.stride_tricks.as_strided(few, (1, 2, 1, 16), (0, 0, 2**31, 4)).view(type(few))
    wrong = [
        (keys[..., ::2], r"keys lie at strides of .*: pass rows of neighbouring elements"),
        (far, "a slot less than 2 GiB from the next"),
        (zeros((1, 2, 3, 20), np.float16), "head_dim=20 of float16 was given: the GPU reads rows of 16 bytes"),
        (zeros((1, 2, 3, 512), np.float16), "head_dim=512 was given: the GPU takes at most 256"),
    ]
    for rows, sentence in wrong:
        cache = Dense().prepare(BorrowedRows(rows, rows), backend=gpu_on_cpu)
        with pytest.raises(ValueError, match=sentence):
            PlannedStep(cache, 4, None, None)


def test_pages_that_kernels_cannot_read_are_gathered(gpu_on_cpu: Any) -> None:
    draw = np.random.default_rng(5)
    pool = [gpu_on_cpu.cupy.asarray(draw.standard_normal((9, 2, 4, 32)).astype(np.float32)) for _ in range(2)]
    rows = PagedRows(*(array[..., ::2] for array in pool), np.array([[7, 2]]))
    own = DeviceRows.readable(rows.bind(np.array([[0, 8]]), gpu_on_cpu))
    assert own.keys.shape == (1, 2, 8, 16)
    np.testing.assert_array_equal(own.keys[0, :, 4:], pool[0][2, ..., ::2])


def test_slots_of_a_page_may_lie_far_apart(gpu_on_cpu: Any) -> None:
    """The last slot lies beyond 2^31 bytes from the first."""
    gpu, stride = gpu_on_cpu, 2**27
    try:
        memory = np.empty(16 * stride + 64, np.float16).view(type(gpu.cupy.zeros(1)))
    except MemoryError:
        pytest.skip("4 GiB of address space are needed.")
    shape, strides = (1, 1, 17, 64), (0, 0, 2 * stride, 2)
    far = np.lib.stride_tricks.as_strided(memory, shape, strides).view(type(memory))
    near = np.random.default_rng(1).standard_normal(shape).astype(np.float16)
    far[...] = near
    query, outputs = gpu.cupy.asarray(np.ones((1, 2, 64), np.float16)), []
    for pages in (far, gpu.cupy.asarray(near)):
        cache = Santa(9).prepare(PagedRows(pages, pages, np.array([[0]])), backend=gpu)
        outputs.append(np.asarray(cache.plan(2, key=KEY).run(query)[1]).copy())
    np.testing.assert_array_equal(*outputs)


def test_an_append_renews_a_block_table_that_was_written_on_the_device(gpu_on_cpu: Any) -> None:
    rows = rows_of_another(gpu_on_cpu, PagedRows, head_dim=64, dtype=np.float16)[1]
    plan = Santa(9).prepare(rows, kv_len=30, backend=gpu_on_cpu).plan(4, key=KEY)
    plan.rows.table[...] = 0
    plan.append(rows, tokens=1)
    np.testing.assert_array_equal(np.asarray(plan.rows.table), rows.block_table)
    plan.rows.table[...] = 0
    stream = gpu_on_cpu.cupy.cuda.Stream()
    with stream:
        stream.begin_capture()
        plan.append(rows, tokens=1)
        stream.end_capture()
    assert (np.asarray(plan.rows.table) == 0).all()
