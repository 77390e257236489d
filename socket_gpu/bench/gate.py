"""The correctness gate: what a result has to satisfy before its speed may be shown. All on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.selection import Budget, select_tokens
from socket_theory.testing import TOLERANCES, relative_rms

Array = NDArray[Any]

SCORE_ERROR = 0.02
ROWS = 4


class GateError(ValueError):
    """A result is wrong. Its speed is of no interest and is not shown."""


def sampled_rows(batch: int, heads: int, count: int = ROWS) -> list[tuple[int, int]]:
    """(sequence, head) of rows spread evenly from the first to the last."""
    chosen = np.unique(np.linspace(0, batch * heads - 1, count).astype(int))
    return [(int(row) // heads, int(row) % heads) for row in chosen]


def poison(*arrays: Any) -> None:
    """Overwrite arrays with NaN, or with -1 where they hold integers, so that nothing stale passes."""
    for array in arrays:
        array.view(np.uint8).fill(255)


def require_scores(name: str, scores: Array, expected: Array) -> None:
    """An RMS error of at most 2 % of the expected scores' standard deviation over tokens."""
    difference = scores.astype(np.float64) - expected
    error = float(np.sqrt(np.mean(difference**2)) / np.std(expected, dtype=np.float64))
    if not error <= SCORE_ERROR:
        raise GateError(
            f"the scores of {name} differ from the reference by {100 * error:.3g} % of their standard deviation, "
            f"and {100 * SCORE_ERROR:g} % is allowed."
        )


def require_selection(name: str, indices: Array, scores: Array, budget: Budget) -> None:
    """Indices [K] are exactly the selection of these very scores [N]."""
    expected = set(select_tokens(scores, budget).tolist())
    found = indices.tolist()
    if found != sorted(expected):
        raise GateError(
            f"the selection of {name} is not that of its scores: {len(expected.difference(found))} of "
            f"{len(expected)} tokens are missing."
        )


def require_value(name: str, value: Array, expected: Array) -> None:
    """An attention output within the bfloat16 tolerance of the float64 one."""
    require_close(f"the output of {name}", value, expected)


def require_close(name: str, found: Array, expected: Array) -> None:
    """Anything within the bfloat16 tolerance of what is expected."""
    error, allowed = relative_rms(found, expected), TOLERANCES["bfloat16"]
    if not error <= allowed:
        raise GateError(f"{name} has a relative RMS error of {error:.3g}, and {allowed:g} is allowed.")
