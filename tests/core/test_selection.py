"""Budgets and the total order of scores."""

import warnings

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="pip install 'socket-theory[test]'")
from hypothesis import given
from hypothesis import strategies as st

from socket_theory import Budget, OracleTopK
from socket_theory.core.selection import ForcedTokensWarning, pad_rows, rank_keys, select_tokens, sum_group

SCORES = st.lists(st.sampled_from([-np.inf, -2.0, -1e-40, -0.0, 0.0, 1e-40, 0.5, 0.5000001, 3e38, np.inf]), min_size=1)


@given(scores=SCORES)
def test_the_order_is_score_then_later_token(scores):
    array = np.array(scores, dtype=np.float32)
    order = np.argsort(rank_keys(array))
    expected = sorted(range(len(scores)), key=lambda i: (array[i], i))
    assert order.tolist() == expected


@given(scores=SCORES, sink=st.integers(0, 4), window=st.integers(0, 4), extra=st.integers(0, 9))
def test_kept_is_the_forced_tokens_and_the_best_of_the_rest(scores, sink, window, extra):
    budget = Budget(tokens=max(1, sink + window + extra), sink=sink, window=window)
    kept = select_tokens(np.array(scores), budget)
    count = len(scores)
    forced = [i for i in range(count) if i < sink or i >= count - window]
    rest = sorted(set(range(count)) - set(forced), key=lambda i: (np.float32(scores[i]), i), reverse=True)
    assert kept.tolist() == sorted((forced + rest)[: budget.kept(count)])
    assert kept.dtype == np.int32


@pytest.mark.parametrize(
    ("budget", "kept"),
    [
        (Budget(tokens=4), [16, 17, 18, 19]),
        (Budget(tokens=4, window=2), [16, 17, 18, 19]),
        (Budget(tokens=4, sink=1), [0, 17, 18, 19]),
        (Budget(tokens=4, sink=2), [0, 1, 18, 19]),
        (Budget(tokens=4, sink=3, window=1), [0, 1, 2, 19]),
    ],
)
def test_no_more_than_the_sink_and_the_window_is_forced(budget, kept):
    rising, falling = np.arange(20.0), np.arange(20.0)[::-1]
    assert select_tokens(rising, budget).tolist() == kept
    mirrored = Budget(tokens=4, sink=budget.window, window=budget.sink)
    assert select_tokens(falling, mirrored).tolist() == [19 - slot for slot in reversed(kept)]


@pytest.mark.parametrize(
    ("budget", "length", "kept"),
    [
        (Budget(tokens=8), 5, 5),
        (Budget(tokens=8), 100, 8),
        (Budget(fraction=0.05), 8192, 410),
        (Budget(fraction=0.5), 5, 3),
        (Budget(fraction=0.5), 1, 1),
        (Budget(fraction=1e-9), 1000, 1),
        (Budget(fraction=1.0), 1000, 1000),
        (Budget(fraction=0.01, sink=16, window=64), 1000, 80),
        (Budget(fraction=0.01, sink=16, window=64), 50, 50),
    ],
)
def test_kept_counts_round_half_up_and_never_reach_zero(budget, length, kept):
    assert budget.kept(length) == kept


@pytest.mark.parametrize(
    ("budget", "length", "choice"),
    [
        (Budget(fraction=0.05, sink=16, window=64), 1609, False),
        (Budget(fraction=0.05, sink=16, window=64), 1610, True),
        (Budget(tokens=80, sink=16, window=64), 8192, False),
        (Budget(tokens=81, sink=16, window=64), 8192, True),
        (Budget(tokens=81, sink=16, window=64), 81, False),
        (Budget(fraction=1.0), 100, False),
        (Budget(fraction=0.5), 1, False),
    ],
)
def test_scores_have_a_choice_between_the_forced_tokens_and_all(budget, length, choice):
    assert budget.leaves_choice(length) == choice


@pytest.mark.parametrize(("length", "warned"), [(40, True), (1609, True), (1610, False), (8192, False)])
def test_a_step_warns_once_where_forced_tokens_exceed_the_fraction(length, warned):
    keys = np.ones((2, 2, length, 2), dtype=np.float32)
    cache = OracleTopK().prepare(keys, keys, kv_len=[length, max(1, length - 1)] if warned else None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        OracleTopK().attend(keys[:, :, 0], cache, budget=Budget(fraction=0.05, sink=16, window=64))
    assert [warning.category for warning in caught] == [ForcedTokensWarning] * warned
    assert all(warning.filename == __file__ for warning in caught)
    assert all("of fewer than 1610 tokens these 80 fill that share" in str(w.message) for w in caught)


def test_a_loop_of_steps_is_warned_of_once():
    keys = np.ones((2, 30, 2), dtype=np.float32)
    cache = OracleTopK().prepare(keys, keys)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for length in range(1, 31):
            OracleTopK().attend(keys[:, 0], cache.truncate(length), budget=Budget(fraction=0.05, sink=4, window=4))
    assert len(caught) == 1


@pytest.mark.parametrize("bad", [np.nan, -np.nan])
def test_scores_that_are_nan_are_refused_and_a_share_is_at_most_one(bad):
    with pytest.raises(ValueError, match="the scores contain NaN"):
        select_tokens(np.array([1.0, bad, 2.0]), Budget(tokens=1))
    for fraction in (1.0000001, 1.5, 100):
        with pytest.raises(ValueError, match="pass a share of the tokens"):
            Budget(fraction=fraction)


def test_a_group_sum_runs_in_head_order_in_float32():
    scores = np.array([[1e8], [1.0], [-1e8], [5.0], [6.0], [7.0]], dtype=np.float32)
    total = sum_group(scores, 2)
    assert total.dtype == np.float32
    np.testing.assert_array_equal(total[:, 0], [(np.float32(1e8) + np.float32(1)) - np.float32(1e8), 18])


def test_rows_are_padded_with_minus_one():
    rows = [np.array([3, 5], np.int32), np.array([1], np.int32)]
    assert pad_rows(rows).tolist() == [[3, 5], [1, -1]]
