"""C2: which tokens a budget keeps."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.claim import Claim, Context, Measurement
from socket_theory.core.selection import Budget, select_tokens

Float = NDArray[np.float64]
Select = Callable[[Float, Budget], NDArray[Any]]


def _budgets() -> tuple[Budget, ...]:
    return (
        Budget(tokens=1),
        Budget(tokens=12, sink=2, window=3),
        Budget(fraction=0.1, sink=1, window=1),
        Budget(fraction=0.01, sink=4, window=8),
        Budget(tokens=60, sink=30, window=30),
        Budget(fraction=0.5),
        Budget(fraction=0.37, sink=3, window=2),
        Budget(fraction=0.145),
        Budget(fraction=1.0),
    )


def _tied_scores(context: Context) -> list[Float]:
    """Scores of 1 to 200 tokens on seven values, and on the two zeros alone, so that ties straddle every cut."""
    rng = context.generator()
    scores = [rng.integers(-3, 4, size=count).astype(np.float64) for count in (1, 7, 64, 199, 200)]
    return [*scores, *(rng.choice([-0.0, 0.0], size=count) for count in (63, 200))]


def _kept(count: int, budget: Budget) -> int:
    """`tokens` of them, or floor(fraction n + 1/2) but at least one; never fewer than forced, never more than all.

    The share is computed in doubles, so 14.5 % of 100 are 14: .145 is a little less than it reads.
    """
    if budget.tokens is not None:
        return min(count, budget.tokens)
    return min(count, max(1, budget.sink + budget.window, math.floor(float(budget.fraction or 0) * count + 0.5)))


def _selection_set(context: Context, select: Select) -> Measurement:
    """Cases in which the output is not a set of exactly kept(n) tokens with every forced token in it."""
    wrong = 0
    for scores in _tied_scores(context):
        for budget in _budgets():
            count, chosen = len(scores), select(scores, budget).tolist()
            forced = {*range(min(budget.sink, count)), *range(max(0, count - budget.window), count)}
            is_set = len(set(chosen)) == len(chosen) == _kept(count, budget)
            wrong += not (is_set and forced <= set(chosen) <= set(range(count)))
    return Measurement(wrong, 0)


def _selection_order(context: Context, select: Select) -> Measurement:
    """Cases in which the free places are not filled by the largest (score, index)."""
    wrong = 0
    for scores in _tied_scores(context):
        for budget in _budgets():
            count, chosen = len(scores), select(scores, budget).tolist()
            forced = {*range(min(budget.sink, count)), *range(max(0, count - budget.window), count)}
            ranked = sorted(set(range(count)) - forced, key=lambda i: (scores[i], i), reverse=True)
            wrong += chosen != sorted(forced | set(ranked[: _kept(count, budget) - len(forced)]))
    return Measurement(wrong, 0)


def _select_with_overlap(scores: Float, budget: Budget) -> NDArray[Any]:
    """The top tokens beside the forced ones, without looking whether they are the same."""
    count = len(scores)
    forced = [*range(min(budget.sink, count)), *range(max(0, count - budget.window), count)]
    top = np.argsort(scores, kind="stable")[count - (budget.kept(count) - len(forced)) :]
    return np.sort(np.concatenate([np.array(forced, dtype=np.int64), top]))


def _select_earlier(scores: Float, budget: Budget) -> NDArray[Any]:
    """Ties go to the earlier token."""
    count = len(scores)
    raised = scores.astype(np.float64)
    raised[: budget.sink] = raised[max(0, count - budget.window) :] = np.inf
    return np.sort(np.argsort(-raised, kind="stable")[: budget.kept(count)])


CLAIMS = (
    Claim(
        id="C2.set",
        title="Selection is a set",
        statement="A selection holds exactly kept(n) different tokens, and each forced token (sink, window) once.",
        source="definition of the budget",
        kind="identity",
        wrong="a token that is both forced and among the top counted twice",
        check=partial(_selection_set, select=select_tokens),
        control=partial(_selection_set, select=_select_with_overlap),
    ),
    Claim(
        id="C2.order",
        title="Selection order",
        statement="Free places go to the largest score, compared as float32, and among equal ones to the later token; "
        "-0.0 is 0.0.",
        source="definition of the order",
        kind="identity",
        wrong="< for <= at a tie: the earlier token wins",
        check=partial(_selection_order, select=select_tokens),
        control=partial(_selection_order, select=_select_earlier),
    ),
)
