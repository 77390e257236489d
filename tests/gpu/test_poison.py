"""What lies in a plan's buffers before a run, or in a cache outside the spans, has no influence on a step."""

import dataclasses

import numpy as np
import pytest

from socket_theory import Budget, HardLSH, Santa, Socket
from socket_theory.core.checks import bfloat16

pytestmark = pytest.mark.gpu
# Written by the run before and read by the next one: these carry state and are not scratch.
STATE = {"codes", "norms", "fragments", "matrix", "center", "spans", "status", "counts", "floors", "tickets", "steps"}
OUTPUTS = ("value", "lse", "indices", "lengths")
CASES = [
    (Socket.as_released(), 128, "bfloat16", 4, "query_head"),
    (Socket(num_planes=8, value_weight=True), 64, "float32", 2, "kv_head"),
    (Socket(num_planes=11, num_tables=70), 64, "float16", 5, "kv_head"),
    (HardLSH(num_planes=4, num_tables=33), 128, "float32", 7, "query_head"),
]
SANTA_CASES = [(Santa(40), 128, "bfloat16", 4), (Santa(40, "flash", 64), 128, "bfloat16", 4)]


def buffers(cupy, plan):
    """Every array of a plan, by name, that a run writes before it reads it."""
    members = [(name, member) for name, member in vars(plan).items() if name not in ("cache", "rows")]
    for _, holder in list(members):
        if dataclasses.is_dataclass(holder):
            members += [(field.name, getattr(holder, field.name)) for field in dataclasses.fields(holder)]
    return {name: array for name, array in members if isinstance(array, cupy.ndarray) and name not in STATE}


def outside(spans, slots):
    """Slots of each sequence that hold no token, bool [B, slots]."""
    slot = np.arange(slots)
    return (slot < spans[:, :1]) | (slot >= spans.sum(axis=1, keepdims=True))


def poison_cache(device, cache, byte):
    """NaN in rows and norms, and any code, wherever there is no token."""
    from socket_gpu.socket_lsh.codes import CodeLayout

    for name, array in {"keys": cache.keys, "values": cache.values, **cache.index.arrays}.items():
        held = device.get(array)
        if name == "codes":
            layout = CodeLayout(cache.method.num_tables, cache.method.num_planes)
            codes = layout.unpack(held, 32 * array.shape[2])
            empty = outside(cache.kv_range, codes.shape[-1])[:, None, None]
            held = layout.pack(np.where(empty, byte & (2**layout.num_planes - 1), codes))
        else:
            for rows, empty in zip(held, outside(cache.kv_range, array.shape[2]), strict=True):
                rows[:, empty] = np.nan
        array[...] = device.put(held)


def poisoned_step(device, case, byte):
    """The outputs of an append and a run whose buffers held nothing but this byte."""
    method, head_dim, dtype, group, share = case
    element = bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    problem = device.problem(
        method, head_dim=head_dim, num_qo_heads=2 * group, num_kv_heads=2, batch=3, slots=500, dtype=element
    )
    cache = device.prepare(method, problem, capacity=533)
    poison_cache(device, cache, byte)
    budget = Budget(fraction=0.2, sink=3, window=5, per=share)
    plan = device.plan(cache, problem.query, budget)
    scratch = buffers(device.cupy, plan)
    for array in scratch.values():
        array.view(np.uint8)[...] = byte
    token = np.full((3, 2, 1, head_dim), 0.5, element)
    plan.append(device.put(token), device.put(token))
    plan.run(device.put(problem.query))
    plan.check()
    assert {*OUTPUTS, "scores", "partial"} <= set(scratch)
    return [device.get(getattr(plan, name)) for name in OUTPUTS], problem, budget


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_output_is_written_and_no_poison_is_read(device, case):
    # 0xFF is NaN as a float and the padding as an index; 0x7F a huge float, or NaN in half, and no index at all.
    (results, problem, budget), (others, _, _) = (poisoned_step(device, case, byte) for byte in (0xFF, 0x7F))
    for left, right in zip(results, others, strict=True):
        np.testing.assert_array_equal(left, right)
    value, lse, indices, lengths = results
    assert np.isfinite(value.astype(np.float64)).all()
    assert np.isfinite(lse).all()
    for row, (start, length) in enumerate(problem.spans):
        kept = budget.kept(int(length) + 1)
        assert (lengths[row] == kept).all()
        assert (indices[row, :, kept:] == -1).all()
        assert ((indices[row, :, :kept] >= start) & (indices[row, :, :kept] <= start + length)).all()
        assert (np.diff(indices[row, :, :kept], axis=-1) > 0).all()


def poisoned_draws(device, case, byte):
    """The outputs of an append and a SANTA run whose buffers held nothing but this byte, and the spans of the run."""
    method, head_dim, dtype, group = case
    element = bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    problem = device.problem(
        method, head_dim=head_dim, num_qo_heads=2 * group, num_kv_heads=2, batch=3, slots=500, dtype=element
    )
    cache = device.prepare(method, problem, capacity=533)
    poison_cache(device, cache, byte)
    plan = device.santa_plan(cache, problem.query)
    scratch = buffers(device.cupy, plan)
    assert {"value", "lse", "draws", "scores", "states", "partial"} == set(scratch)
    for array in scratch.values():
        array.view(np.uint8)[...] = byte
    token = device.put(np.full((3, 2, 1, head_dim), 0.5, element))
    plan.append(token, token)
    plan.run(device.put(problem.query))
    plan.check()
    return [device.get(array) for array in (plan.draws, plan.value, plan.lse)], device.get(plan.spans)


@pytest.mark.parametrize("case", SANTA_CASES, ids=str)
def test_every_drawn_output_is_written_and_no_poison_is_read(device, case):
    (results, spans), (others, _) = (poisoned_draws(device, case, byte) for byte in (0xFF, 0x7F))
    for left, right in zip(results, others, strict=True):
        np.testing.assert_array_equal(left, right)
    draws, value, lse = results
    assert np.isfinite(value.astype(np.float64)).all()
    assert np.isfinite(lse).all()
    for drawn, (start, length) in zip(draws, spans, strict=True):
        assert (((drawn >= start) & (drawn < start + length)) | (drawn == -1)).all()
        assert (drawn[:, 0] >= 0).all()


@pytest.mark.parametrize("byte", [0x00, 0x7F, 0xFF])
def test_eager_operations_read_no_poison(device, byte):
    method = Socket.as_released()
    problem = device.problem(method, head_dim=64, num_qo_heads=8, num_kv_heads=2, slots=500)
    clean = device.prepare(method, problem)
    cache = device.prepare(method, problem)
    poison_cache(device, cache, byte)
    query, budget = device.put(problem.query), Budget(tokens=40, sink=2, window=3)
    expected, found = (method.attend(query, one, budget=budget) for one in (clean, cache))
    for name in ("indices", "value", "lse"):
        np.testing.assert_array_equal(device.get(getattr(found, name)), device.get(getattr(expected, name)))
