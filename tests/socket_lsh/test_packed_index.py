"""The packed index grows as if it had been made of all tokens at once, and without capacity in a copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from socket_gpu.socket_lsh.packed_index import PackedIndex
from socket_theory import BorrowedRows, Budget, Key, Socket
from socket_theory.core.checks import bfloat16

KEY = Key.from_seed(7)
METHOD = Socket(num_planes=5, num_tables=33, value_weight=True)
STARTS, LENGTHS = np.array([3, 0]), np.array([37, 20])
COUNTS = (1, 5, 40)


def drawn(gpu: Any, slots: int, seed: int) -> list[Any]:
    rows = np.random.default_rng(seed).standard_normal((2, 2, 2, slots, 16))
    return [gpu.cupy.asarray(array.astype(bfloat16())) for array in rows]


def arrays(index: Any) -> list[Any]:
    return [np.asarray(index.arrays[name]).copy() for name in ("codes", "value_norms")]


def valid(index: Any, kv_range: Any) -> list[Any]:
    """Words and norms of the valid tokens, token by token."""
    codes, norms = arrays(index)
    words = np.moveaxis(codes, 5, 3).reshape(*codes.shape[:2], -1, *codes.shape[3:5])
    return [a[row, :, s : s + n].copy() for a in (words, norms) for row, (s, n) in enumerate(kv_range)]


@pytest.mark.parametrize("capacity", [None, 90])
def test_appended_tokens_have_the_index_of_prepared_ones(gpu_on_cpu: Any, capacity: int | None) -> None:
    at = {"kv_start": STARTS, "backend": gpu_on_cpu}
    cache = METHOD.prepare(*drawn(gpu_on_cpu, 40, 0), kv_len=LENGTHS, key=KEY, capacity=capacity, **at)
    for seed, count in enumerate(COUNTS):
        cache = cache.append(*drawn(gpu_on_cpu, count, 1 + seed))
    whole = METHOD.prepare(cache.keys, cache.values, kv_len=LENGTHS + sum(COUNTS), sample=cache.sample, **at)
    assert isinstance(cache.index, PackedIndex)
    assert [a.shape for a in arrays(cache.index)] == [a.shape for a in arrays(whole.index)]
    for found, expected in zip(valid(cache.index, cache.kv_range), valid(whole.index, cache.kv_range), strict=True):
        np.testing.assert_array_equal(found, expected)
    order = [1, 0, 1]
    for found, expected in zip(arrays(cache.take(order).index), arrays(cache.index), strict=True):
        np.testing.assert_array_equal(found, expected[order])


def test_without_capacity_two_appends_to_a_cache_do_not_meet(gpu_on_cpu: Any) -> None:
    """Not even where the last block of 32 slots has room."""
    cache = METHOD.prepare(*drawn(gpu_on_cpu, 40, 0), key=KEY, backend=gpu_on_cpu)
    before = arrays(cache.index)
    first = cache.append(*drawn(gpu_on_cpu, 3, 1))
    kept = arrays(first.index)
    cache.append(*drawn(gpu_on_cpu, 3, 2))
    for index, expected in ((cache.index, before), (first.index, kept)):
        for found, held in zip(arrays(index), expected, strict=True):
            np.testing.assert_array_equal(found, held)


@pytest.mark.parametrize("slots", [33, 64])
def test_a_token_has_the_bytes_of_its_lane(gpu_on_cpu: Any, slots: int) -> None:
    """Two rings of 32 tables of 5 bits and a norm of 2 bytes, for each of two KV heads."""
    cache = METHOD.prepare(*drawn(gpu_on_cpu, slots, 0), key=KEY, backend=gpu_on_cpu)
    assert cache.index.bytes_per_token() == 2 * (2 * 32 * 5 // 8 + 2)


def test_borrowed_rows_have_the_index_of_rows_that_a_cache_owns(gpu_on_cpu: Any) -> None:
    """In a buffer of which more and more slots are tokens."""
    keys, values = drawn(gpu_on_cpu, 70, 3)
    at = {"sample": METHOD.draw(16, KEY), "backend": gpu_on_cpu}
    query = gpu_on_cpu.cupy.asarray(np.random.default_rng(4).standard_normal((2, 4, 16)).astype(bfloat16()))
    rows = BorrowedRows(keys.swapaxes(1, 2).copy().swapaxes(1, 2), values)
    borrowed = METHOD.prepare(rows, kv_len=30, **at).append(rows, tokens=7)
    owned = METHOD.prepare(keys[:, :, :37], values[:, :, :37], **at)
    for found, expected in zip(valid(borrowed.index, owned.kv_range), valid(owned.index, owned.kv_range), strict=True):
        np.testing.assert_array_equal(found, expected)
    budget = Budget(tokens=9, sink=2)
    found, expected = (METHOD.attend(query, cache, budget=budget) for cache in (borrowed, owned))
    np.testing.assert_array_equal(np.asarray(found.indices), np.asarray(expected.indices))
    np.testing.assert_array_equal(np.asarray(found.value), np.asarray(expected.value))
