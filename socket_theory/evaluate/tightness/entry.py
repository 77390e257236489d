"""One bound of the library, what it is compared with, and the row of the table that this gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from socket_theory.core.thresholds import tightness

DELTA, LOOSE = 0.05, 3.0
Kind = Literal["tail", "value", "count"]
Compared = tuple[ArrayLike, ArrayLike]
P = TypeVar("P")


@dataclass(frozen=True)
class Entry(Generic[P]):
    """A bound and how to compare it at a setting.

    Parameters
    ----------
    claim, title : str
        The ID of the claim that checks it, and what it bounds in a few words.
    form : str
        The public function, from the family or `bounds` on: "bounds.ratio.plug_in_radius".
    kind : {"tail", "value", "count"}
        What `compare` gives: radii at delta = .05 and the errors of independent trials; a bound and the value that it
        bounds; a number of tables by the bound and the smallest that does.
    compare : setting -> (bound, measured)
        With "tail", errors are [trials] or, with a radius [K] for each of K cases, [trials, K]. With "value" and
        "count", [K] of both. Of several cases the loosest counts.
    reason : str
        Why bound / measured exceeds 3 where it does, as a sentence.
    """

    claim: str
    title: str
    form: str
    kind: Kind
    compare: Callable[[P], Compared]
    reason: str


@dataclass(frozen=True)
class Row:
    """A bound at a setting. `bound` and `tightness` are None where the bound is infinite and so says nothing.

    `tightness` is bound / measured, where what is measured is the (1 - delta)-quantile of errors, a value or a count.
    """

    claim: str
    title: str
    form: str
    kind: Kind
    setting: str
    bound: float | None
    measured: float
    tightness: float | None
    reason: str | None


def row_of(entry: Entry[P], setting: str, problem: P) -> Row:
    """The entry at one setting; the reason is given where the bound is more than 3 times what it bounds."""
    bound, measured, ratio = _tail(*entry.compare(problem)) if entry.kind == "tail" else _value(*entry.compare(problem))
    finite = math.isfinite(bound)
    return Row(
        claim=entry.claim,
        title=entry.title,
        form=entry.form,
        kind=entry.kind,
        setting=setting,
        bound=bound if finite else None,
        measured=measured,
        tightness=ratio if finite else None,
        reason=entry.reason if ratio > LOOSE else None,
    )


def _tail(radii: ArrayLike, errors: ArrayLike) -> tuple[float, float, float]:
    """The median radius, the quantile of the errors in its unit, and the ratio."""
    limits, seen = np.asarray(radii, dtype=float), np.asarray(errors, dtype=float)
    if seen.ndim == 1:
        ratio, bound = tightness(limits, seen, DELTA), float(np.median(limits))
        measured = bound / ratio if math.isfinite(bound) else float(np.quantile(seen, 1 - DELTA, method="higher"))
        return bound, measured, ratio
    cases = [_tail(limit, case) for limit, case in zip(limits, seen.T, strict=True)]
    return max(cases, key=lambda case: case[2])


def _value(bounds: ArrayLike, values: ArrayLike) -> tuple[float, float, float]:
    limits, seen = (np.atleast_1d(np.asarray(given, dtype=float)) for given in (bounds, values))
    place = int(np.argmax(limits / seen))
    return float(limits[place]), float(seen[place]), float(limits[place] / seen[place])
