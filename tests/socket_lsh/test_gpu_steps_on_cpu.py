"""SOCKET's planned steps with their kernels on a CPU, stage by stage against the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from socket_gpu.socket_lsh.codes import CodeLayout
from socket_gpu.socket_lsh.operations import CupyOperations
from socket_gpu.socket_lsh.plan import DecodePlan
from socket_gpu.socket_lsh.score import Collision
from socket_theory import Budget, Key, Socket
from socket_theory.core.checks import bfloat16
from socket_theory.core.hashing import hash_keys
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.core.rows import DenseRows
from socket_theory.core.selection import pad_rows, select_tokens, sum_group
from socket_theory.socket_lsh.contract import check_operations
from socket_theory.socket_lsh.operations import NumpyOperations
from socket_theory.testing import random_problem, relative_rms, rounding_margin

KEY, REFERENCE, SM_SCALE = Key.from_seed(31), NumpyOperations(), 0.2
ON_GPU = CupyOperations()
# Two rings of tables.
METHODS = {
    "query_head": Socket(num_planes=6, num_tables=40, value_weight=True),
    "kv_head": Socket(num_planes=5, num_tables=33, center_keys=True),
}


def host(array: Any) -> Any:
    return np.asarray(array).copy()


def problem_of(method: Socket, dtype: Any, seed: int = 0) -> Any:
    """Two ragged sequences, two KV heads of two query heads; planes of the method."""
    sizes = {"slots": 150, "head_dim": 64, "num_tables": method.num_tables, "num_planes": method.num_planes}
    drawn = random_problem(KEY.fold_in("seed", seed), dtype=dtype, **sizes)
    keys, values = np.random.default_rng(seed).standard_normal((2, *drawn.keys.shape))
    spans = np.array([[9, 139], [3, 80]])
    for row, (start, length) in enumerate(spans):
        for array in (keys, values):
            array[row, :, :start] = array[row, :, start + length :] = np.nan
    return replace(drawn, keys=(keys + 0.7).astype(dtype), values=values.astype(dtype), spans=spans)


def prepare(gpu: Any, method: Any, problem: Any, **options: Any) -> Any:
    """A cache with room for seven more tokens behind the longest sequence."""
    spans = {"kv_start": problem.spans[:, 0], "kv_len": problem.spans[:, 1]}
    arrays = (gpu.cupy.asarray(a) for a in (problem.keys, problem.values))
    return method.prepare(*arrays, backend=gpu, sample=problem.planes, **spans, **({"capacity": 157} | options))


def new_tokens(gpu: Any, count: int, dtype: Any, seed: int) -> list[Any]:
    return [
        gpu.cupy.asarray(a.astype(dtype)) for a in np.random.default_rng(seed).standard_normal((2, 2, 2, count, 64))
    ]


def held(cache: Any) -> list[bytes]:
    """All that a cache holds."""
    return [host(array).tobytes() for array in (cache.keys, cache.values, *cache.index.arrays.values())]


def valid(array: Any, spans: Any) -> Any:
    """The entries of [B, heads, N, ...] at valid tokens."""
    return np.concatenate([array[row, :, a : a + n].ravel() for row, (a, n) in enumerate(spans)])


def require_index(cache: Any, planes: Any) -> Any:
    """Codes and norms of the valid tokens are the reference's. Gives the codes."""
    method, spans, keys, frozen = cache.method, host(cache.kv_range), host(cache.keys), cache.index.frozen
    layout, words = CodeLayout(method.num_tables, method.num_planes), host(cache.index.arrays["codes"])
    codes = layout.unpack(words, keys.shape[2])
    by_slot = [
        np.moveaxis(packed, 5, 3).reshape(*packed.shape[:2], -1, *packed.shape[3:5])
        for packed in (words, layout.pack(codes))
    ]
    np.testing.assert_array_equal(*(valid(made, spans) for made in by_slot))  # no bit beside the codes
    place = np.arange(method.num_planes, dtype=np.uint16)[:, None]
    for row, head in np.ndindex(*keys.shape[:2]):
        own = keys[row, head, slice(*np.cumsum(spans[row]))]
        center = host(frozen["center"])[row, head].astype(np.float64) if "center" in frozen else 0.0
        differ = codes[row, head][:, slice(*np.cumsum(spans[row]))] ^ hash_keys(own, planes, center)
        certain = rounding_margin(own, planes, center)
        assert certain.mean() > 0.98
        assert not ((differ[:, None] >> place & 1).astype(bool) & certain).any()
    if method.value_weight:
        expected = REFERENCE.value_norms(host(cache.values), spans)
        norms = host(cache.index.arrays["value_norms"]).astype(np.float32)
        np.testing.assert_array_equal(valid(norms[..., : keys.shape[2]], spans), valid(expected, spans))
    return codes


def require_step(plan: Any, query: Any, planes: Any) -> None:
    """Every stage of the last run is the reference's on what the stage before gave."""
    plan.check()
    cache, method, spans = plan.cache, plan.cache.method, host(plan.spans)
    codes, keys, values = require_index(cache, planes), host(cache.keys), host(cache.values)
    settings = planes, method.query_map, method.temperature
    scores = REFERENCE.soft_scores(query, codes, spans, *settings)
    if method.value_weight:
        scores = REFERENCE.weigh_scores(scores, REFERENCE.value_norms(values, spans))
    if plan.budget.per == "kv_head":
        scores = np.stack([sum_group(row, keys.shape[1]) for row in scores])
    found = host(plan.totals)[..., : keys.shape[2]]
    allowed = (
        2e-2 if Collision(method.query_map, method.temperature).entry(plan.scorer.layout, 64, 2) == "bytes" else 1e-5
    )
    for row, (start, length) in enumerate(spans):
        own = scores[row, :, start : start + length].astype(np.float64)
        error = np.sqrt(np.mean((found[row, :, start : start + length] - own) ** 2, axis=-1))
        assert (error <= allowed * own.std(axis=-1)).all()
    rows = [
        select_tokens(head[start : start + length], plan.budget) + np.int32(start)
        for sequence, (start, length) in zip(found, spans, strict=True)
        for head in sequence
    ]
    indices, kept = host(plan.indices), pad_rows([*rows, np.full(plan.indices.shape[-1], -1, np.int32)])[:-1]
    np.testing.assert_array_equal(indices, kept.reshape(indices.shape))
    lists = np.repeat(indices, query.shape[1] // indices.shape[1], axis=1)
    rows = DenseRows(keys, values, spans, NumpyBackend())
    expected = NumpyBackend().attend(query, rows, lists, plan.sm_scale)
    assert relative_rms(host(plan.value), expected[0]) <= 2e-6
    np.testing.assert_allclose(host(plan.lse), expected[1], atol=1e-5)


@pytest.mark.parametrize(("num_qo_heads", "num_planes", "num_tables", "allowed"), [(2, 4, 12, 1e-4), (4, 16, 2, 2e-2)])
def test_the_contract_of_the_operations_holds(
    gpu_on_cpu: Any, num_qo_heads: int, num_planes: int, num_tables: int, allowed: float
) -> None:
    """One query head a KV head has all scores by floats; two have some by bytes, and so many planes that all vanish."""
    sizes = {"num_qo_heads": num_qo_heads, "num_planes": num_planes, "num_tables": num_tables}
    check_operations(gpu_on_cpu, random_problem(Key.from_seed(1), num_kv_heads=2, slots=97, **sizes), allowed)


@pytest.mark.parametrize(("group", "dtype"), [("query_head", "bfloat16"), ("kv_head", "float16")])
def test_steps_and_appends_are_the_references(gpu_on_cpu: Any, group: Any, dtype: str) -> None:
    """In 16 bits with a float32 output, so that arithmetic in the caller's dtype would show."""
    method, element = METHODS[group], bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    problem = problem_of(method, element)
    cache = prepare(gpu_on_cpu, method, problem)
    if method.center_keys:
        center = host(cache.index.frozen["center"])
        np.testing.assert_array_equal(center, REFERENCE.mean_keys(problem.keys, problem.spans))
    # So many that a list is split in two, unevenly.
    query, budget = gpu_on_cpu.cupy.asarray(problem.query), Budget(tokens=71, sink=3, window=5, per=group)
    plan = DecodePlan(cache, num_qo_heads=4, budget=budget, sm_scale=SM_SCALE, out_dtype=np.float32)
    for _ in range(2):  # from all scores, then from those that reach the floor
        plan.run(query)
        require_step(plan, problem.query, problem.planes)
    assert (host(plan.searches) == 1).all()
    spans, expected = problem.spans.copy(), [host(cache.keys), host(cache.values)]
    for count in (1, 4):
        tokens = new_tokens(gpu_on_cpu, count, element, count)
        plan.append(*tokens)
        for array, new in zip(expected, tokens, strict=True):
            for row, end in enumerate(spans.sum(axis=1)):
                array[row, :, end : end + count] = new[row]
        spans[:, 1] += count
        np.testing.assert_array_equal(host(plan.spans), spans)
        for held, array in zip((cache.keys, cache.values), expected, strict=True):
            np.testing.assert_array_equal(host(held).view(np.uint16), array.view(np.uint16))
    plan.run(query)
    plan.cache = replace(cache, rows=cache.rows.bind(spans, cache.backend))
    require_step(plan, problem.query, problem.planes)
    whole = ON_GPU.hash_keys(cache.keys, spans, problem.planes, cache.index.frozen.get("center"))
    layout = plan.scorer.layout
    np.testing.assert_array_equal(
        valid(np.moveaxis(layout.unpack(host(cache.index.arrays["codes"]), 157), 2, 3), spans),
        valid(np.moveaxis(layout.unpack(host(whole), 157), 2, 3), spans),
    )


def test_an_append_that_does_not_fit_a_sequence_leaves_it_as_it_was(gpu_on_cpu: Any) -> None:
    method = METHODS["query_head"]
    problem = problem_of(method, bfloat16())
    cache = prepare(gpu_on_cpu, method, problem, capacity=160)
    plan = DecodePlan(cache, num_qo_heads=4, budget=Budget(tokens=30))
    before = {"keys": host(cache.keys).view(np.uint16), "values": host(cache.values).view(np.uint16)}
    codes = require_index(cache, problem.planes)
    plan.append(*new_tokens(gpu_on_cpu, 20, bfloat16(), 3))  # room for 12, or 21 without the padding, and 77
    with pytest.raises(RuntimeError, match="exceeded the planned capacity"):
        plan.check()
    plan.check()
    np.testing.assert_array_equal(host(plan.spans), [[9, 139], [3, 100]])
    np.testing.assert_array_equal(
        plan.scorer.layout.unpack(host(cache.index.arrays["codes"]), 160)[0, ..., 9:148], codes[0, ..., 9:148]
    )
    np.testing.assert_array_equal(
        plan.scorer.layout.unpack(host(cache.index.arrays["codes"]), 160)[1, ..., 3:83], codes[1, ..., 3:83]
    )
    for name, array in before.items():
        np.testing.assert_array_equal(host(getattr(cache, name)).view(np.uint16)[0], array[0])


def test_plans_of_two_layers_do_not_meet(gpu_on_cpu: Any) -> None:
    """Steps and appends in turn leave what each leaves alone."""
    method, budget = METHODS["query_head"], Budget(tokens=30, sink=3, window=5)
    problems = [problem_of(method, bfloat16(), seed) for seed in (1, 2)]
    assert (problems[0].planes.weights != problems[1].planes.weights).any()

    def layer(problem: Any) -> Any:
        cache = prepare(gpu_on_cpu, method, problem)
        return DecodePlan(cache, num_qo_heads=4, budget=budget, sm_scale=SM_SCALE, out_dtype=np.float32)

    def advance(plan: Any, problem: Any, step: int) -> None:
        plan.append(*new_tokens(gpu_on_cpu, 1, bfloat16(), 10 + step))
        plan.run(gpu_on_cpu.cupy.asarray(problem.query))

    together, alone = [layer(problem) for problem in problems], [layer(problem) for problem in problems]
    for step in range(2):
        for plan, problem in zip(together, problems, strict=True):
            advance(plan, problem, step)
    for plan, problem in zip(alone, problems, strict=True):
        for step in range(2):
            advance(plan, problem, step)
    for left, right, problem in zip(together, alone, problems, strict=True):
        other = DecodePlan(left.cache, num_qo_heads=4, budget=budget)
        np.testing.assert_array_equal(host(other.spans), problem.spans)
        left.cache = replace(left.cache, rows=left.cache.rows.bind(host(left.spans), gpu_on_cpu))
        require_step(left, problem.query, problem.planes)
        for name in ("value", "lse", "indices", "spans"):
            np.testing.assert_array_equal(host(getattr(left, name)), host(getattr(right, name)))


def test_tokens_and_queries_of_another_kind_are_refused_before_anything_is_written(gpu_on_cpu: Any) -> None:
    method, cupy = METHODS["query_head"], gpu_on_cpu.cupy
    problem = problem_of(method, bfloat16())
    cache = prepare(gpu_on_cpu, method, problem)
    plan = DecodePlan(cache, num_qo_heads=4, budget=Budget(tokens=30))
    keys, values = new_tokens(gpu_on_cpu, 2, bfloat16(), 1)
    before = held(cache)
    for wrong in (
        (keys.astype(np.float16), values),
        (keys, values.astype(np.float32)),
        (host(keys), values),
        (keys, values[:, :, :1]),
        (keys[:, :1], values),
        (keys, cupy.asarray(np.asfortranarray(values))),
    ):
        with pytest.raises((TypeError, ValueError), match="pass"):
            plan.append(*wrong)
        if all(array.flags.c_contiguous for array in wrong):
            with pytest.raises((TypeError, ValueError), match=r"pass|convert"):
                cache.append(*wrong)
    for query in (problem.query, cupy.asarray(problem.query[:, :2]), cupy.asarray(problem.query.astype(np.float32))):
        with pytest.raises((TypeError, ValueError), match="pass"):
            plan.run(query)
    assert held(cache) == before
    np.testing.assert_array_equal(host(plan.spans), problem.spans)
    with pytest.raises(ValueError, match="kv_start \\+ kv_len at most the slots"):
        method.prepare(keys, values, sample=problem.planes, backend=gpu_on_cpu, kv_start=1, kv_len=2)


def test_what_is_not_finite_is_reported(gpu_on_cpu: Any) -> None:
    method = METHODS["query_head"]
    problem = problem_of(method, bfloat16())
    plan = DecodePlan(prepare(gpu_on_cpu, method, problem), num_qo_heads=4, budget=Budget(tokens=150))
    query = gpu_on_cpu.cupy.asarray(problem.query)
    plan.run(query)
    plan.check()
    for array in (query[1, 3, 5:6], plan.cache.keys[0, 1, 9, 5:6], plan.cache.values[1, 0, 82, 5:6]):
        before = array.copy()
        array[...] = np.nan
        plan.run(query)
        with pytest.raises(RuntimeError, match="an output is not finite"):
            plan.check()
        array[...] = before


def test_norms_are_rounded_once_and_means_are_added_in_float64(gpu_on_cpu: Any) -> None:
    """A norm just above the middle between 1 and the next number of bfloat16, and sums beyond float16."""
    values, spans = np.full((1, 1, 40, 64), 300.0, np.float16), np.array([[3, 30]])
    values[0, 0, :, 0] += np.arange(40)
    values[0, 0, 4] = [1 + 2.0**-8, 2.0**-14] + [0] * 62
    found = host(ON_GPU.value_norms(gpu_on_cpu.cupy.asarray(values), spans))[0, 0].astype(np.float32)
    assert found[4] == 1 + 2.0**-7
    np.testing.assert_array_equal(found[3:33], REFERENCE.value_norms(values, spans)[0, 0, 3:33])
    for dtype in (np.dtype(np.float16), bfloat16()):
        keys = (values.astype(np.float64) / 7).astype(dtype)
        means = host(ON_GPU.mean_keys(gpu_on_cpu.cupy.asarray(keys), spans))
        np.testing.assert_array_equal(means, REFERENCE.mean_keys(keys, spans))


@pytest.mark.parametrize(("dtype", "centred"), [("float16", False), ("bfloat16", True)])
def test_keys_are_hashed_with_all_their_bits(gpu_on_cpu: Any, dtype: str, centred: bool) -> None:
    """A centred key has more of them than its dtype; a key of zeros is on the positive side of every plane."""
    method = Socket(num_planes=6, num_tables=40, center_keys=centred)
    problem = problem_of(method, bfloat16() if dtype == "bfloat16" else np.float16)
    problem.keys[1, 1, 10] = 0
    cache = prepare(gpu_on_cpu, method, problem)
    codes = require_index(cache, problem.planes)
    if not centred:
        assert (codes[1, 1, :, 10] == 63).all()


def test_tables_of_several_launches_are_all_counted(gpu_on_cpu: Any) -> None:
    problem = random_problem(KEY, num_tables=260, num_planes=1, slots=70, head_dim=16)
    codes = REFERENCE.hash_keys(problem.keys, problem.spans, problem.planes, None)
    words = gpu_on_cpu.cupy.asarray(CodeLayout(260, 1).pack(codes))
    at: Any = (problem.spans, problem.planes, "tanh_scaled", 0.4)
    found = host(ON_GPU.soft_scores(gpu_on_cpu.cupy.asarray(problem.query), words, *at))[..., :70]
    np.testing.assert_allclose(found, REFERENCE.soft_scores(problem.query, codes, *at), rtol=1e-5)
