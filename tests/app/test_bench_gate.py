"""The gate of the benchmark accepts the reference and rejects results that are slightly wrong."""

from __future__ import annotations

import numpy as np
import pytest

from socket_gpu.bench import gate
from socket_theory.core.attention import softmax_attention
from socket_theory.core.rng import Key
from socket_theory.core.selection import Budget, select_tokens

KEY = Key.from_seed(3)
BUDGET = Budget(tokens=50, sink=4, window=8)


def draws(*shape):
    return KEY.generator().standard_normal(shape)


@pytest.mark.parametrize(("share", "passes"), [(0.015, True), (0.025, False), (np.nan, False)])
def test_scores_within_two_per_cent_of_their_spread(share, passes):
    expected = 5 + 0.1 * draws(20_000)
    scores = (expected + share * 0.1 * KEY.fold_in("error").generator().standard_normal(20_000)).astype(np.float32)
    if passes:
        gate.require_scores("a head", scores, expected)
    else:
        with pytest.raises(gate.GateError, match="scores of a head differ"):
            gate.require_scores("a head", scores, expected)


@pytest.mark.parametrize("change", ["swapped", "twice", "missing", "order"])
def test_the_selection_is_exact(change):
    scores = draws(1000).astype(np.float32)
    kept = select_tokens(scores, BUDGET)
    gate.require_selection("a head", kept, scores, BUDGET)
    wrong = kept.copy()
    if change == "swapped":
        wrong[20] = np.setdiff1d(np.arange(kept[19], kept[21] + 2), kept)[0]
    elif change == "twice":
        wrong[20] = wrong[19]
    elif change == "missing":
        wrong = np.append(np.delete(wrong, 20), -1)
    else:
        wrong[[3, 30]] = wrong[[30, 3]]
    with pytest.raises(gate.GateError, match="selection of a head"):
        gate.require_selection("a head", wrong, scores, BUDGET)


def test_an_output_is_that_of_the_float64_attention():
    keys, values = draws(2, 300, 32)
    expected = softmax_attention(keys[0], keys, values).value
    gate.require_value("a head", expected.astype(np.float16), expected)
    for wrong in (1.02 * expected, np.where(np.arange(32) == 5, np.nan, expected)):
        with pytest.raises(gate.GateError, match="output of a head"):
            gate.require_value("a head", wrong, expected)
