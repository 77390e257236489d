"""The GPU keeps exactly the reference's tokens on identical scores, however the scores lie and the survivors fall."""

import numpy as np
import pytest

from socket_theory import Budget, Key, Socket
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.core.selection import pad_rows, rank_keys, select_tokens

pytestmark = pytest.mark.gpu
DRAW = Key.from_seed(41).generator
SHAPE = (2, 4, 4099)
SPANS = np.array([[0, 4099], [37, 3000]])

SCORES = {
    "all_equal": np.zeros(SHAPE),
    "few_distinct": DRAW().integers(0, 4, SHAPE),
    "zeros_of_both_signs": np.where(DRAW().random(SHAPE) < 0.5, 0.0, -0.0),
    "one_larger": np.arange(SHAPE[-1]) == 1234 + np.zeros(SHAPE),
    "one_smaller": np.arange(SHAPE[-1]) != 1234 + np.zeros(SHAPE),
    "subnormal": DRAW().integers(0, 1 << 23, SHAPE).astype(np.uint32).view(np.float32),
    "neighbouring_floats": (np.float32(1).view(np.uint32) + DRAW().integers(0, 64, SHAPE).astype(np.uint32)).view("f4"),
    "both_signs": DRAW().standard_normal(SHAPE),
    "every_magnitude": np.exp(60 * DRAW().standard_normal(SHAPE).clip(-1.4, 1.4)),
    "some_infinite": np.where(DRAW().random(SHAPE) < 0.3, -np.inf, DRAW().standard_normal(SHAPE)),
    "descending": -np.arange(SHAPE[-1]) + np.zeros(SHAPE),
}
BUDGETS = [
    Budget(tokens=1),
    Budget(tokens=100),
    Budget(tokens=100, sink=40, window=60),
    Budget(tokens=1000, sink=3, window=500),
    Budget(tokens=2999),
    Budget(tokens=10**6),
    Budget(fraction=1e-9, sink=2000, window=1500),
    Budget(fraction=0.3, sink=1, per="kv_head"),
    Budget(fraction=1.0),
]


@pytest.mark.parametrize("name", SCORES)
def test_selection_is_the_references(device, name):
    scores = SCORES[name].astype(np.float32)
    for budget in BUDGETS:
        found = device.get(device.engine.select(device.put(scores), SPANS, budget, 2))
        np.testing.assert_array_equal(found, NumpyBackend().select(scores, SPANS, budget, 2), str(budget))


@pytest.mark.parametrize("num_nan", [3, 70, 3000])
def test_scores_that_are_nan_end_in_a_selection_of_valid_slots(device, num_nan):
    scores = DRAW().standard_normal(SHAPE).astype(np.float32)
    scores[:, :, 500 : 500 + num_nan] = np.nan
    found = device.get(device.engine.select(device.put(scores), SPANS, Budget(tokens=50, sink=2), 2))
    for row, (start, length) in enumerate(SPANS):
        for kept in found[row]:
            assert (np.diff(kept) > 0).all()
            assert start <= kept[0] <= kept[-1] < start + length


@pytest.mark.parametrize("budget", [Budget(tokens=1), Budget(tokens=5, sink=2, window=3), Budget(fraction=0.5)])
def test_one_token_is_kept(device, budget):
    scores, spans = np.zeros((2, 4, 70), np.float32), np.array([[0, 1], [69, 1]])
    found = device.get(device.engine.select(device.put(scores), spans, budget, 2))
    assert found.tolist() == [[[0]] * 4, [[69]] * 4]


def test_selection_spans_more_slots_than_a_block_marks_at_a_time(device):
    scores = DRAW().integers(0, 1000, (1, 1, 400_003)).astype(np.float32)
    spans = np.array([[41, 399_950]])
    for budget in (Budget(tokens=20_000, sink=5, window=7), Budget(fraction=0.7)):
        found = device.get(device.engine.select(device.put(scores), spans, budget, 1))
        np.testing.assert_array_equal(found, NumpyBackend().select(scores, spans, budget, 1))


@pytest.mark.parametrize("short", [0, 1, 40])
def test_ties_that_are_kept_whole_are_kept_in_every_window(device, short):
    """Each of four blocks marks its 150000 slots in two windows; the last score kept is all of its ties, or less."""
    scores = DRAW().integers(0, 4, (1, 1, 600_003)).astype(np.float32)
    spans = np.array([[41, 599_950]])
    ties = int((scores[0, 0, 41 + 5 : 599_991 - 7] == 3).sum())
    budget = Budget(tokens=12 + ties - short, sink=5, window=7)
    found = device.get(device.engine.select(device.put(scores), spans, budget, 1))
    np.testing.assert_array_equal(found, NumpyBackend().select(scores, spans, budget, 1))


@pytest.fixture(scope="module")
def planned(device):
    """A plan over one sequence with its query, its cache's scores and what they select by the reference."""
    method, budget = Socket.as_released(), Budget(tokens=100, sink=8, window=16)
    problem = device.problem(method, num_qo_heads=8, num_kv_heads=2, slots=12000, spans=[(0, 12000)])
    query = device.put(problem.query)
    plan = device.plan(device.prepare(method, problem), query, budget)
    plan.run(query)
    scores = device.get(plan.totals)[0, :, :12000]
    return plan, query, scores, pad_rows([select_tokens(row, budget) for row in scores])


def floors_below(scores, count):
    """For every row the floor that `count` unforced tokens reach, ties aside."""
    orders = np.stack([rank_keys(row) for row in scores[:, 8:-16]]) >> np.uint64(32)
    return np.sort(orders, axis=1)[:, -count].astype(np.uint32)


@pytest.mark.parametrize(
    "wrong",
    ["nothing", "everything", "exactly_enough", "one_too_few", "a_full_list", "one_too_many", "none_for_some"],
)
def test_a_floor_decides_the_time_and_never_the_result(device, planned, wrong):
    plan, query, scores, expected = planned
    wanted, capacity = 100 - 8 - 16, plan.survivors.keys.shape[1]
    assert wanted < capacity < scores.shape[1] - 24
    floors = {
        "nothing": np.full(8, 2**32 - 1, np.uint32),
        "everything": np.zeros(8, np.uint32),
        "exactly_enough": floors_below(scores, wanted),
        "one_too_few": floors_below(scores, wanted - 1),
        "a_full_list": floors_below(scores, capacity),
        "one_too_many": floors_below(scores, capacity + 1),
        "none_for_some": np.where(np.arange(8) % 2, 2**32 - 1, floors_below(scores, 2 * wanted)).astype(np.uint32),
    }[wrong]
    plan.survivors.floors[:, 0] = device.put(floors)
    for _ in range(3):  # and the floors that follow from it
        plan.run(query)
        plan.check()
        np.testing.assert_array_equal(device.get(plan.indices)[0], expected)


def test_floors_follow_queries_of_other_magnitudes(device, planned):
    plan, query, _, _ = planned
    for scale in (1, 1e-3, 30, -1, 0, 1):
        plan.run(query * scale)
        plan.check()
        scores = device.get(plan.totals)[0, :, :12000]
        expected = pad_rows([select_tokens(row, plan.budget) for row in scores])
        np.testing.assert_array_equal(device.get(plan.indices)[0], expected)


def test_a_query_of_zeros_keeps_the_latest_tokens(device):
    method, budget = Socket(), Budget(tokens=100, sink=8, window=16)
    problem = device.problem(method, num_qo_heads=8, num_kv_heads=2, slots=900)
    query = device.put(np.zeros_like(problem.query))
    plan = device.plan(device.prepare(method, problem), query, budget)
    plan.run(query)
    indices = device.get(plan.indices)
    for row, (start, length) in enumerate(problem.spans):
        tokens = np.arange(start, start + length)
        kept = np.union1d(tokens[:8], tokens[-92:])
        for head in range(8):
            assert indices[row, head, : len(kept)].tolist() == kept.tolist()
