"""Where a budget leaves scores no choice of tokens, so that methods cannot be compared."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace

from socket_theory.core.selection import Budget, ForcedTokensWarning


def forced_only(budget: Budget | None, lengths: Sequence[int]) -> float:
    """The share of prefixes of `lengths` tokens of which every selection keeps the same; 0 without a budget."""
    return sum(budget is not None and not budget.leaves_choice(length) for length in lengths) / len(lengths)


def warn_without_choice(budgets: Iterable[Budget | None], lengths: Sequence[int]) -> None:
    """ForcedTokensWarning, at the caller's caller, for each budget that leaves no choice of some prefix."""
    for budget in budgets:
        without = [length for length in lengths if budget is not None and not budget.leaves_choice(length)]
        if budget is not None and without:
            size = f"fraction={budget.fraction}" if budget.tokens is None else f"tokens={budget.tokens}"
            warnings.warn(
                f"{size} with sink={budget.sink} and window={budget.window} leaves scores no choice at {len(without)} "
                f"of {len(lengths)} positions, the longest of {max(without)} tokens: every selection keeps the "
                "same tokens there, and comparing them says nothing. Pass another share, a longer context, or a "
                "smaller sink and window.",
                ForcedTokensWarning,
                stacklevel=3,
            )


def by_number(budget: Budget | None, length: int) -> Budget | None:
    """The same budget of a prefix as a number of tokens, with which a step does not warn; the row is marked instead."""
    if budget is None:
        return None
    return replace(budget, fraction=None, tokens=max(budget.kept(length), budget.sink + budget.window))
