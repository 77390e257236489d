"""The ranking comparison: its measures on examples counted by hand, and the scores of a decode step behind them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest

from socket_theory import Budget, HardLSH, Key, OracleTopK, Socket
from socket_theory.evaluate.ranking import (
    MEASURES,
    SETTINGS,
    RankingSize,
    agreement,
    correlations,
    evaluate_ranking,
    rankers,
    run_trial,
    scores_of,
)

SMALL = RankingSize(num_keys=300, head_dim=16, num_trials=3, num_queries=2)
TRUTH = np.log([8.0, 4.0, 2.0, 1.0, 0.5])


def test_measures_are_the_ones_counted_by_hand() -> None:
    scores = np.array([1.0, 5.0, 4.0, 3.0, 2.0])  # finds tokens 1, 2, 3, 4, 0 in this order
    two, five = agreement(TRUTH, scores, (2, 5))
    ndcg = (4 + 2 / math.log2(3)) / (8 + 4 / math.log2(3))
    np.testing.assert_allclose(two, [1 / 2, 1 / 3, ndcg, -1, -1], rtol=1e-12)
    discounts = [1 / math.log2(r) for r in range(2, 7)]
    reached = sum(m * d for m, d in zip((4, 2, 1, 0.5, 8), discounts, strict=True))
    ideal = sum(m * d for m, d in zip((8, 4, 2, 1, 0.5), discounts, strict=True))
    # Spearman: 1 - 6 (4^2 + 4 * 1^2) / (5 * 24) = 0. Kendall: 6 pairs agree, the 4 with token 0 do not.
    np.testing.assert_allclose(five, [1, 1, reached / ideal, 0, 0.2], rtol=1e-12, atol=1e-12)


def test_a_perfect_ranking_is_one_and_a_reversed_one_is_minus_one() -> None:
    perfect = agreement(TRUTH, np.exp(TRUTH), (2, 3, 5))
    np.testing.assert_allclose(perfect, np.ones((3, len(MEASURES))), rtol=1e-12)
    reversed_order = agreement(TRUTH, -TRUTH, (5,))[0]
    np.testing.assert_allclose(reversed_order[[0, 3, 4]], [1, -1, -1], rtol=1e-12)
    assert (agreement(TRUTH, -TRUTH, (2,))[0, :2] == 0).all()


def test_among_ties_the_later_token_is_found_and_nothing_is_ordered() -> None:
    one = agreement(TRUTH[::-1], np.zeros(5), (1,))[0]
    np.testing.assert_array_equal(one, [1, 1, 1, 0, 0])
    assert agreement(TRUTH, np.zeros(5), (1,))[0, 0] == 0
    tied = correlations(np.array([3.0, 2.0, 1.0]), np.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(tied, [math.sqrt(3) / 2, 2 / math.sqrt(6)], rtol=1e-12)


@pytest.mark.parametrize("method", [HardLSH(4, 20), Socket(6, 20, query_map="tanh", temperature=1.0)])
def test_the_top_k_is_what_a_decode_step_keeps(method: HardLSH | Socket) -> None:
    draw = Key.from_seed(4).generator()
    keys, query = draw.standard_normal((1, 300, 16)), draw.standard_normal((2, 16))
    cache = method.prepare(keys, keys, key=Key.from_seed(5))
    truth, found = (scores_of(m, query, cache) for m in (OracleTopK(), method))
    logits = query @ keys[0].T / 4
    np.testing.assert_allclose(truth, logits - logits.max(1, keepdims=True), atol=1e-5)
    kept = method.attend(query, cache, budget=Budget(tokens=30)).indices
    for head in range(2):
        best = set(np.argsort(logits[head])[-30:].tolist())
        assert agreement(truth[head], found[head], (30,))[0, 0] == len(best & set(kept[head].tolist())) / 30


def test_rows_are_means_over_trials_with_their_standard_errors() -> None:
    methods, ks = rankers((3,), (10,)), (5, 50)
    rows = evaluate_ranking(methods, ks, SMALL, seed=2)
    trials = np.stack([run_trial(methods, ks, SMALL, Key.from_seed(2).fold_in("trial", i)) for i in range(3)])
    assert [row.method for row in rows] == ["hard_lsh"] + ["socket"] * len(SETTINGS)
    for place, row in enumerate(rows):
        assert row.settings == asdict(methods[place])
        for column, name in enumerate(MEASURES):
            values = trials[:, place, :, column]
            np.testing.assert_allclose(row.means[name], values.mean(axis=0))
            np.testing.assert_allclose(row.standard_errors[name], values.std(axis=0, ddof=1) / math.sqrt(3))


def test_more_tables_rank_better_and_soft_scores_better_than_hard_ones() -> None:
    few, many, soft = HardLSH(6, 5), HardLSH(6, 100), Socket(6, 100)
    size = RankingSize(num_keys=1000, head_dim=32, num_trials=8, num_queries=2)
    for worse, better in pairwise(evaluate_ranking([few, many, soft], (50,), size)):
        assert better.means["precision"][0] - worse.means["precision"][0] > 5 * better.standard_errors["precision"][0]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: evaluate_ranking(rankers((2,), (3,)), (), SMALL), r"ks=\[\] were given for 300 keys: pass integers"),
        (lambda: evaluate_ranking(rankers((2,), (3,)), (301,), SMALL), r"ks=\[301\] were given for 300 keys"),
        (lambda: RankingSize(num_trials=1), "num_trials=1 was given: pass an integer of at least 2"),
        (lambda: rankers((17,), (3,)), "num_planes=17 was given: pass at most 16"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
