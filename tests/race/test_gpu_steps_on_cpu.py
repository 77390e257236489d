"""RACE's planned steps with their kernels on a CPU: what they read of sums, what they add, and what they launch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from socket_gpu.core import append, plan
from socket_gpu.race import step
from socket_theory import Key, Race
from socket_theory.core.checks import bfloat16
from socket_theory.core.hashing import Planes
from socket_theory.testing import assert_close, assert_rounded

KEY = Key.from_seed(31)
SPANS: dict[str, Any] = {"kv_start": [0, 37], "kv_len": [90, 1]}
# Method, head_dim of keys, of values, dtype of keys, of values, query heads a KV head.
CASES = [
    (Race(3, 5, 2.0), 48, 40, "float32", "float32", 7),
    (Race(4, 4, 1.0), 64, 64, "bfloat16", "bfloat16", 1),
    (Race(2, 3, 0.3), 16, 8, "float16", "float64", 3),
    (Race(1, 40, 80.0), 256, 24, "float64", "bfloat16", 1),
    (Race(12, 1, 6.5), 16, 16, "float32", "float16", 1),
]


def dtype_of(name: str) -> Any:
    return bfloat16() if name == "bfloat16" else np.dtype(name)


def drawn(case: tuple[Any, ...], slots: int, seed: int = 0) -> list[Any]:
    """A query [2, Hq, D], keys [2, 2, slots, D] and values [2, 2, slots, E] on the host."""
    _, dim, length, keys, values, group = case
    draw = np.random.default_rng(seed)
    shapes = ((2, 2 * group, dim), keys), ((2, 2, slots, dim), keys), ((2, 2, slots, length), values)
    return [draw.standard_normal(shape).astype(dtype_of(name)) for shape, name in shapes]


def require_reference(found: tuple[Any, Any], query: Any, cache: Any) -> None:
    """The value and lse of a run are those of the reference over a cache on the host, rounded once."""
    exact = cache.method.attend(query, cache, out_dtype=np.float64)
    for array, expected in zip(found, (exact.value, exact.lse), strict=True):
        if array.dtype == np.float64:
            assert_close(array, expected, "float64")
        else:
            assert_rounded(np.asarray(array), expected)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_step_and_its_appends_are_the_references(gpu_on_cpu: Any, case: tuple[Any, ...]) -> None:
    (query, keys, values), method = drawn(case, 90), case[0]
    put, spans = gpu_on_cpu.cupy.asarray, SPANS | {"capacity": 105, "key": KEY}
    host = method.prepare(keys, values, **spans)
    planned = method.prepare(put(keys), put(values), backend=gpu_on_cpu, **spans).plan(query.shape[1])
    require_reference(planned.run(put(query)), query, host)
    for seed, tokens in enumerate((1, 2, 11)):
        new = drawn(case, tokens, seed + 1)[1:]
        planned.append(*map(put, new))
        host = host.append(*new)
        require_reference(planned.run(put(-query)), -query, host)
    planned.check()
    np.testing.assert_array_equal(np.asarray(planned.spans), host.kv_range)


def test_tokens_beyond_the_capacity_are_dropped_sequence_by_sequence(gpu_on_cpu: Any) -> None:
    """The second one is shorter than the first, but it begins at a later slot."""
    case, spans = CASES[1], {"kv_start": [0, 37], "kv_len": [70, 53]}
    query, *rows = (gpu_on_cpu.cupy.asarray(array) for array in drawn(case, 90))
    cache = case[0].prepare(*rows, key=KEY, backend=gpu_on_cpu, capacity=91, **spans)
    planned = cache.plan(query.shape[1])
    before = [np.asarray(array).copy() for array in (planned.mass, planned.weighted)]
    planned.append(*(gpu_on_cpu.cupy.asarray(array) for array in drawn(case, 2)[1:]))
    assert np.asarray(planned.spans).tolist() == [[0, 72], [37, 53]]
    for array, old in zip((planned.mass, planned.weighted), before, strict=True):
        np.testing.assert_array_equal(np.asarray(array)[1], old[1])
        assert (np.asarray(array)[0] != old[0]).any(axis=-1).all()
    with pytest.raises(RuntimeError, match="an append exceeded the planned capacity"):
        planned.check()


@pytest.mark.parametrize("side", [1, -1])
def test_a_query_on_the_far_side_of_every_key_keeps_its_weights(gpu_on_cpu: Any, side: int) -> None:
    method, planes = Race(1, 1, 80.0), Planes(np.eye(16)[None, :1])
    keys, values = 30 * side * np.eye(16)[None, None, :1], np.arange(16.0)[None, None, None]
    cache = method.prepare(*map(gpu_on_cpu.cupy.asarray, (keys, values)), sample=planes, backend=gpu_on_cpu)
    value, lse = cache.plan(1).run(gpu_on_cpu.cupy.asarray(-keys[:, :, 0]))
    assert_close(np.asarray(value), values[:, :, 0], "float64")
    assert np.asarray(lse)[0, 0] == pytest.approx(np.log(2) - 160, rel=1e-14)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_query_that_is_not_finite_is_reported(gpu_on_cpu: Any, bad: float) -> None:
    query, *rows = (gpu_on_cpu.cupy.asarray(array) for array in drawn(CASES[0], 3))
    planned = CASES[0][0].prepare(*rows, key=KEY, backend=gpu_on_cpu).plan(query.shape[1])
    query[1, 13, 7] = bad
    planned.run(query)
    with pytest.raises(RuntimeError, match="an output is not finite"):
        planned.check()


def test_sums_of_millions_of_tokens_take_in_one_more(gpu_on_cpu: Any) -> None:
    case = (Race(2, 1, 1.0), 16, 16, "float32", "float32", 1)
    keys, values = (gpu_on_cpu.cupy.asarray(array) for array in drawn(case, 1)[1:])
    planned = case[0].prepare(keys, values, key=KEY, backend=gpu_on_cpu, capacity=2).plan(2)
    mass, weighted = (np.asarray(array).copy() for array in (planned.mass, planned.weighted))
    planned.mass *= 2.0**25
    planned.weighted *= 2.0**25
    planned.append(keys, values)
    for array, one in ((planned.mass, mass), (planned.weighted, weighted)):
        np.testing.assert_allclose(np.asarray(array) - 2.0**25 * one, one, rtol=1e-6)


def test_where_no_token_was_seen_the_value_is_0_and_the_lse_infinite(gpu_on_cpu: Any) -> None:
    cupy, case = gpu_on_cpu.cupy, CASES[0]
    hashed = step.Hash.of(case[0].draw(48, KEY).weights, 2.0)
    value, lse, status = cupy.empty((2, 14, 40), np.float32), cupy.empty((2, 14), np.float32), cupy.zeros(1, np.uint32)
    sums = cupy.zeros((2, 2, 40)), cupy.zeros((2, 2, 40, 40))
    step.read_sums_into(value, lse, cupy.asarray(drawn(case, 1)[0]), hashed, *sums, status)
    assert not np.asarray(value).any()
    assert np.isneginf(np.asarray(lse)).all()
    assert int(status[0]) == 0


def test_what_a_step_launches_and_holds_does_not_depend_on_the_context(
    gpu_on_cpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, cupy, seen = CASES[1], gpu_on_cpu.cupy, []

    def recorded(kernel: Any, *sizes: Any, **params: Any) -> None:
        shapes = {name: getattr(value, "shape", value) for name, value in params.items() if name != "num_slots"}
        seen.append((kernel.program[1], sizes, str(shapes)))

    for module in (step, append):
        monkeypatch.setattr(module, "launch", recorded)
    found = []
    for tokens in (1, 1000, 2**20, 2**40):
        query, *rows = (cupy.asarray(array) for array in drawn(case, 1))
        cache = case[0].prepare(*rows, key=KEY, backend=gpu_on_cpu, capacity=2**41)
        held = cache.rows.bind(np.array([[0, tokens]] * 2), gpu_on_cpu)
        planned = replace(cache, rows=held).plan(query.shape[1])
        planned.run(query)
        planned.append(*rows)
        sizes = {name: array.shape for name, array in vars(planned).items() if isinstance(array, cupy.ndarray)}
        found.append((tuple(seen), sizes))
        seen.clear()
    assert [name.split("<")[0] for name, *_ in found[0][0]] == ["read_sums", "add_tokens", "advance_spans"]
    assert all(other == found[0] for other in found)


def test_a_capacity_reserves_no_memory(gpu_on_cpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tokens that are not kept: two petabytes of them are planned for."""
    query, *rows = (gpu_on_cpu.cupy.asarray(array) for array in drawn(CASES[1], 3))
    cache = CASES[1][0].prepare(*rows, key=KEY, backend=gpu_on_cpu, capacity=2**41)
    assert cache.capacity == 2**41
    planned = cache.plan(query.shape[1])
    assert planned.rows is None
    assert planned.slots == 2**41
    monkeypatch.setattr(plan, "append_into", None)  # no rows to write to
    planned.append(*rows)
    planned.run(query)
    planned.check()
