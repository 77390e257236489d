"""Recall (S14): the proved bounds and tables by hand, and on coins that are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from socket_theory.bounds.recall import KeyScores

MEANS = np.array([0.2, 0.8, 0.75, 0.25, 0.7, 0.2, 0.3])


def coins(means: NDArray[np.float64]) -> KeyScores:
    return KeyScores(means, means * (1 - means), (0.0, 1.0))


def test_two_keys_have_the_bound_worked_out_by_hand() -> None:
    """By symmetry the threshold is 1/2: each key has a gap of .2, a variance of .21 and a range of .7."""
    for tables, expected in ((1, 2 * 0.21 / (0.21 + 0.04)), (200, 2 * math.exp(-200 * 0.04 / (2 * (0.21 + 0.14 / 3))))):
        assert coins(np.array([0.3, 0.7])).recall_failure(1, 1.0, tables) == pytest.approx(min(1, expected), rel=1e-12)
    tables = coins(np.array([0.3, 0.7])).recall_tables(1, 1.0, 0.05)
    assert tables == math.ceil(math.log(2 / 0.05) * 2 * (0.21 + 0.14 / 3) / 0.04)


@pytest.mark.parametrize(("recall", "delta"), [(0.3, 0.05), (0.9, 0.2), (1.0, 1e-6)])
def test_recall_tables_is_the_smallest_that_keeps_the_failure(recall: float, delta: float) -> None:
    scores = coins(MEANS)
    tables = scores.recall_tables(3, recall, delta)
    assert scores.recall_failure(3, recall, tables) <= delta < scores.recall_failure(3, recall, tables - 1)


def test_a_share_of_the_top_is_rounded_up_to_whole_keys() -> None:
    scores = coins(MEANS)
    assert scores.recall_failure(3, 0.34, 50) == scores.recall_failure(3, 2 / 3, 50)
    assert scores.recall_failure(3, 0.34, 50) > scores.recall_failure(3, 1 / 3, 50)


@pytest.mark.parametrize("recall", [0.3, 0.6, 1.0])
def test_drawn_coins_keep_the_recall_and_its_mean(recall: float) -> None:
    rng, scores, delta = np.random.default_rng(1), coins(MEANS), 0.2
    tables = scores.recall_tables(3, recall, delta)
    drawn = rng.binomial(tables, MEANS, size=(4000, len(MEANS))) + 0.5 * rng.random((4000, len(MEANS)))
    kept = np.argsort(-drawn, axis=1)[:, :3]
    found = np.isin(kept, np.argsort(-MEANS)[:3]).sum(axis=1) / 3
    assert np.mean(found < recall - 1e-9) <= delta
    assert np.mean(found) >= scores.expected_recall_bound(3, tables)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: coins(MEANS).recall_tables(7, 1.0, 0.1), "k=7 was given for 7 keys: pass a smaller k"),
        (lambda: coins(MEANS).recall_tables(6, 1.0, 0.1), "keys 6 and 7 in order have the same kernel value"),
        (lambda: coins(MEANS).recall_tables(3, 0.0, 0.1), r"recall=0.0 was given: pass a share in \(0, 1\]"),
        (lambda: coins(MEANS).recall_tables(3, 1.0, 1.0), "delta=1.0 was given"),
        (lambda: coins(np.array([0.5, 0.5 - 1e-13])).recall_tables(1, 1.0, 0.1), r"needs more than 1e18 tables"),
        (lambda: KeyScores(MEANS, MEANS[1:], (0.0, 1.0)), r"means has shape \(7,\) and variances \(6,\)"),
        (lambda: KeyScores(MEANS, MEANS, (0.0, 0.5)), r"weight_range=\(0.0, 0.5\) does not hold all means"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
