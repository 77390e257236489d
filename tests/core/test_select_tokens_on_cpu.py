"""Selection as its kernel's own source makes it, on a CPU: what CI can see of kernels without a GPU.

A C++ compiler builds a kernel with `cuda_on_cpu/cuda.h` in the place of CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from socket_gpu.core._compile import kernel_source, specialised
from socket_gpu.core._launch import struct
from socket_theory import Budget
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.core.selection import rank_keys

CAPACITY, THREADS = 2048, 1024
SMALLEST = np.array([np.finfo(np.float32).tiny])


@pytest.fixture(scope="module")
def select(gpu_on_cpu: Any, cupy_on_cpu: ModuleType) -> Callable[..., Any]:
    """(indices [K], times that all scores were searched) of scores [N], with a floor and its margin or without.

    A floor given as an array is also written to.
    """
    instance = specialised("select_tokens", (), {"per_thread": 2, "blocks_a_sm": 1, "width": 4})
    kernel = cupy_on_cpu.Kernel(kernel_source("core/select_tokens.cu"), instance)

    def selected(
        scores: Any,
        span: tuple[int, int],
        budget: Budget,
        parts: int,
        floor: Any = None,
        listings: int = 1,
        room: Any = None,
    ) -> tuple[Any, int]:
        kept = budget.kept(span[1])
        room = kept if room is None else room
        indices, lengths = np.full((1, room), -7, np.int32), np.zeros(1, np.int32)
        survivors, counts, status = np.zeros(CAPACITY, np.uint64), np.zeros(3, np.uint32), np.zeros(1, np.uint32)
        orders = rank_keys(np.where(np.isnan(scores), np.inf, scores)) >> np.uint64(32)
        orders = np.where(np.isnan(scores), 2**32 - 1, orders).astype(np.uint64)
        slots = np.arange(span[0] + budget.sink, sum(span) - budget.window)
        floors = floor if floor is None or isinstance(floor, np.ndarray) else np.array(floor, np.uint32)
        if floors is not None:
            passed = slots[orders[slots] >= floors[0]]
            keys = np.tile(orders[passed] << np.uint64(32) | passed.astype(np.uint64), listings)
            counts[0] = len(keys)
            survivors[: len(keys)] = np.random.default_rng(1).permutation(keys)[:CAPACITY]
        tokens = -1 if budget.tokens is None else budget.tokens
        own = [a.view(cupy_on_cpu.Array) for a in (scores, np.array([span], np.int64), status, indices, lengths)]
        lists = [None if floors is None else a.view(cupy_on_cpu.Array) for a in (survivors, counts, floors)]
        params = struct(
            scores=own[0],
            spans=own[1],
            survivors=lists[0],
            counts=lists[1],
            floors=lists[2],
            status=own[2],
            indices=own[3],
            lengths=own[4],
            slots=len(scores),
            rows_per_sequence=1,
            capacity=CAPACITY,
            max_kept=room,
            sink=budget.sink,
            window=budget.window,
            tokens=np.int64(tokens),
            fraction=np.float64(budget.fraction or 0),
        )
        kernel((parts, 1), (THREADS,), (params,))
        assert counts[:2].tolist() == [0, 0] or floors is None
        assert lengths[0] == min(kept, room)
        vanished = kept > span[1] - len(slots) and (orders[slots] < rank_keys(SMALLEST)[0] >> np.uint64(32)).all()
        assert status[0] == 4 * vanished
        return indices[0], int(counts[2])

    return selected


def scores_of(kind: str, slots: int, draw: np.random.Generator) -> Any:
    normal = np.abs(draw.standard_normal(slots))
    drawn = {
        "narrow": 1e-3 * np.exp(0.1 * normal),
        "wide": np.exp(20 * normal.clip(0, 4)),
        "few_distinct": draw.integers(0, 3, slots),
        "equal": np.zeros(slots),
        "zeros_of_both_signs": np.where(draw.random(slots) < 0.5, 0.0, -0.0),
        "subnormal": 1e-40 * normal,
        "some_nan": np.where(draw.random(slots) < 0.2, np.nan, normal),
        "all_nan": np.full(slots, np.nan),
    }[kind]
    scores = drawn.astype(np.float32)
    scores[np.isnan(scores)] = np.uint32(0x7FFFFFFF).view(np.float32)  # the NaN that a GPU makes
    return scores


@pytest.mark.parametrize(
    "kind", ["narrow", "wide", "few_distinct", "equal", "zeros_of_both_signs", "subnormal", "some_nan", "all_nan"]
)
def test_selection_ends_and_is_the_references_whatever_the_floor_is(select: Callable[..., Any], kind: str) -> None:
    draw = np.random.default_rng(3)
    searched = []
    for trial in range(12):
        slots = 32 * int(draw.integers(2, 150))
        start = int(draw.integers(0, slots // 2))
        length = int(draw.integers(40, slots - start + 1)) if slots - start > 40 else slots - start
        scores = scores_of(kind, slots, draw)
        budget = Budget(tokens=int(draw.integers(20, max(21, length))), sink=3, window=7)
        finite = np.where(np.isnan(scores), np.inf, scores)
        threshold = int(np.sort(rank_keys(finite) >> np.uint64(32))[-min(slots, budget.tokens)])
        margin = int(draw.integers(1, 1 << int(draw.integers(1, 28))))
        floors = [None, (2**32 - 1, 1), (max(0, threshold - margin), margin), (int(draw.integers(0, 2**32)), margin)]
        found, times = select(scores, (start, length), budget, 1 + trial % 4, floors[trial % 4])
        searched.append(times)
        expected = NumpyBackend().select(finite[None, None], np.array([[start, length]]), budget, 1)[0, 0]
        np.testing.assert_array_equal(found, expected)
    assert 0 < sum(searched) < 9


@pytest.mark.parametrize(
    ("length", "budget"),
    [
        (25, Budget(fraction=0.1)),
        (45, Budget(fraction=0.1)),
        (45, Budget(fraction=1e-9)),
        (45, Budget(fraction=0.5, sink=20, window=19)),
        (8, Budget(fraction=0.5, sink=3, window=7)),
        (8, Budget(tokens=11, sink=3, window=7)),
        (1, Budget(tokens=11, sink=3, window=7)),
        (45, Budget(tokens=45)),
        (45, Budget(tokens=7, sink=7)),
    ],
    ids=str,
)
def test_shares_and_short_sequences_keep_what_the_reference_keeps(
    select: Callable[..., Any], length: int, budget: Budget
) -> None:
    scores = scores_of("wide", 128, np.random.default_rng(2))
    for parts in (1, 3):
        found, _ = select(scores, (37, length), budget, parts)
        expected = NumpyBackend().select(scores[None, None], np.array([[37, length]]), budget, 1)[0, 0]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("room", [40, 50, 700])
def test_a_list_has_the_first_kept_slots_and_ends_in_none(select: Callable[..., Any], parts: int, room: int) -> None:
    """In a list that is longer than what is kept of this span, or too short for it."""
    scores = scores_of("wide", 960, np.random.default_rng(2))
    budget = Budget(tokens=50, sink=3, window=7)
    expected = np.append(NumpyBackend().select(scores[None, None], np.array([[20, 900]]), budget, 1), [-1] * 700)
    found, _ = select(scores, (20, 900), budget, parts, room=room)
    np.testing.assert_array_equal(found, expected[:room])


@pytest.mark.parametrize("listings", [2, 40, 100])
def test_selection_ends_when_tokens_are_listed_more_than_once(select: Callable[..., Any], listings: int) -> None:
    """As a graph that only scores leaves them; slots that are kept are still in order and in the span."""
    scores = np.random.default_rng(8).standard_normal(320).astype(np.float32)
    for floor in (0x80000000, 0xBF800000, 0xC0000000):  # of scores 0, 1 and 2
        found, _ = select(scores, (20, 250), Budget(tokens=30, sink=3, window=7), 2, (floor, 1 << 20), listings)
        kept = found[(found != -7) & (found != -1)]
        assert (np.diff(kept) > 0).all()
        assert kept[0] == 20
        assert kept[-1] <= 269


@pytest.mark.parametrize("kind", ["few_distinct", "wide"])
@pytest.mark.parametrize("floored", [False, True])
def test_selection_spans_more_slots_than_a_block_marks_at_a_time(
    select: Callable[..., Any], kind: str, floored: bool
) -> None:
    """One block for 140000 slots marks 131072 of them at first; of scores that tie it keeps all, or the later ones."""
    scores = scores_of(kind, 140_000, np.random.default_rng(4))
    span = (37, 139_800)
    unforced = scores[span[0] + 3 : sum(span) - 7]
    ties = np.flatnonzero(unforced == unforced.max())
    top, later = (
        len(ties),
        int((ties + span[0] + 3 >= 70 * 1024).sum()),
    )  # a border of any piece that slots are cut into
    for wanted in (top, top - 1, top + 1, later, 5):
        floor = np.array([2**32 - 1, 1], np.uint32) if floored else None
        budget = Budget(tokens=10 + max(1, wanted), sink=3, window=7)
        found, times = select(scores, span, budget, 1, floor)
        assert times == floored
        expected = NumpyBackend().select(scores[None, None], np.array([span]), budget, 1)[0, 0]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["few_distinct", "narrow", "wide"])
@pytest.mark.parametrize("listed", [False, True])
def test_the_next_floor_lies_its_margin_below_where_kept_and_dropped_scores_part(
    select: Callable[..., Any], kind: str, listed: bool
) -> None:
    """Whether the scores that tie there are kept whole or cut among."""
    scores = scores_of(kind, 960, np.random.default_rng(6))
    orders = rank_keys(scores) >> np.uint64(32)
    unforced = np.sort(orders[20 + 3 : 920 - 7])[::-1]
    for wanted in (40, int((unforced == unforced[0]).sum()), 500):
        last, dropped = int(unforced[wanted - 1]), int(unforced[wanted])
        floor = np.array([last - 1000, 1000] if listed else [2**32 - 1, 1], np.uint32)
        select(scores, (20, 900), Budget(tokens=10 + wanted, sink=3, window=7), 2, floor)
        cut = int(floor[0]) + int(floor[1])
        assert (dropped < cut <= last) if dropped < last else cut == last
