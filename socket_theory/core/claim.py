"""What a claim is, and how one is run.

A claim is verified when its check holds and its control, which is the same check on a wrong variant, is rejected.
A check that no wrong variant can fail says nothing; the control is the evidence that it says something.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from socket_theory.core.rng import Key

Kind = Literal["identity", "inequality", "mean", "tail"]
Effort = Literal["quick", "full", "extreme"]
EFFORTS: dict[Effort, int] = {"quick": 1, "full": 10, "extreme": 100}
TOTAL_FALSE_ALARM = 1e-6
_ID = re.compile(r"[A-Z]\d+(\.[a-z0-9-]+)?")


@dataclass(frozen=True)
class Measurement:
    """What was seen and what the claim allows; it holds where observed <= allowed, and NaN never holds.

    `tightness` is bound / measured (1 - delta)-quantile, where the claim is a bound. `detail` names further numbers.
    """

    observed: float
    allowed: float
    tightness: float | None = None
    detail: tuple[tuple[str, float], ...] = ()

    @property
    def holds(self) -> bool:
        return bool(self.observed <= self.allowed)

    @property
    def rejects(self) -> bool:
        """Whether the excess is there to be seen: a NaN neither holds nor rejects."""
        return bool(self.observed > self.allowed)


def worst(observed: ArrayLike, allowed: ArrayLike, tightness: float | None = None) -> Measurement:
    """The entry of broadcast arrays with the largest observed / allowed, or the first NaN.

    Above an allowance of 0 or less the ratio counts as infinite, so no entry that holds can hide one that does not.
    """
    seen, limit = np.broadcast_arrays(np.asarray(observed, dtype=float), np.asarray(allowed, dtype=float))
    with np.errstate(divide="ignore", invalid="ignore"):
        above, equal = (seen > limit) & (limit <= 0), (seen == limit) & (limit != 0)
        below = (seen <= limit) & (limit <= 0)
        ratio = np.select([above, equal, below], [np.inf, 1.0, limit / np.minimum(seen, -1e-300)], seen / limit)
    entry = np.unravel_index(np.argmax(ratio), ratio.shape)
    return Measurement(float(seen[entry]), float(limit[entry]), tightness)


def inequality(left: ArrayLike, right: ArrayLike) -> Measurement:
    """left <= right for every entry of broadcast arrays, with the tightness right / left of the worst entry."""
    place = worst(left, right)
    return replace(place, tightness=place.allowed / place.observed if place.observed > 0 else None)


def combine(*measurements: Measurement) -> Measurement:
    """All of them at once: the numbers of the worst, the first tightness given, every detail."""
    place = worst([m.observed for m in measurements], [m.allowed for m in measurements])
    tightness = next((m.tightness for m in measurements if m.tightness is not None), None)
    return Measurement(place.observed, place.allowed, tightness, sum((m.detail for m in measurements), ()))


def mildest(*controls: Measurement) -> Measurement:
    """Of several wrong variants the one nearest to passing, so that it is rejected only if all of them are."""
    return min(controls, key=lambda m: (m.rejects, m.observed / m.allowed if m.allowed > 0 else np.inf))


@dataclass(frozen=True)
class Context:
    """What a check may use: its key, the effort, and the false-alarm probability that is its to spend.

    Every threshold is made from `level`, so the whole registry stays below TOTAL_FALSE_ALARM by Bonferroni.
    """

    key: Key
    effort: Effort
    false_alarm: float

    def samples(self, quick: int) -> int:
        """The sample size at this effort, given the one at `quick` (x10 at full, x100 at extreme)."""
        return quick * EFFORTS[self.effort]

    def level(self, comparisons: int = 1) -> float:
        """The false-alarm probability of each of `comparisons` comparisons."""
        return self.false_alarm / comparisons

    def split(self, *tags: str) -> tuple[Context, ...]:
        """One context a tag, each with its own key and an equal part of the false alarm."""
        return tuple(replace(self, key=self.key.fold_in(tag), false_alarm=self.level(len(tags))) for tag in tags)

    def generator(self) -> np.random.Generator:
        """The generator of `key`: fold in a tag for anything else that draws from the same key."""
        return self.key.generator()

    def batches(self, total: int, size: int) -> Iterator[tuple[Key, int]]:
        """`total` samples in pieces of at most `size`, each with its own key, so memory does not grow with effort."""
        for index, start in enumerate(range(0, total, size)):
            yield self.key.fold_in("batch", index), min(size, total - start)


@dataclass(frozen=True)
class Claim:
    """A statement, the check that could have refuted it, and a wrong variant that the same check refutes.

    Parameters
    ----------
    id : str
        A letter and a number, with an optional dotted child: "S9", "S9.plug-in".
    title, statement, source : str
        A few words; the claim in one or two sentences; where it comes from or is proved.
    kind : {"identity", "inequality", "mean", "tail"}
    wrong : str
        What the control gets wrong, as a noun phrase.
    check, control : Context -> Measurement
        The same measurement, of the claim and of the wrong variant. Best as two `functools.partial` of one function.
    """

    id: str
    title: str
    statement: str
    source: str
    kind: Kind
    wrong: str
    check: Callable[[Context], Measurement]
    control: Callable[[Context], Measurement]

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(f"id={self.id!r} was given: pass a letter and a number, such as 'S9' or 'S9.plug-in'.")
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind={self.kind!r} was given for {self.id}: pass one of {', '.join(get_args(Kind))}.")
        for name in ("title", "statement", "source", "wrong"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} of claim {self.id} is empty: pass a sentence that a reader can check.")


@dataclass(frozen=True)
class Result:
    """The outcome of one claim; `verified` is check holds and control rejected.

    `error` says what was raised, if anything was; the measurements are then NaN, which neither holds nor rejects.
    """

    id: str
    measurement: Measurement
    control: Measurement
    seconds: float
    error: str | None = None

    @property
    def verified(self) -> bool:
        return self.measurement.holds and self.control.rejects


def run(claim: Claim, key: Key, effort: Effort, claims_in_run: int) -> Result:
    """Check and control of one claim, on the same key, with its part of the false alarm of `claims_in_run` claims.

    An exception fails this claim and not the run: it becomes the `error` of the result.
    """
    start = time.perf_counter()
    context = Context(key.fold_in(claim.id), effort, TOTAL_FALSE_ALARM / claims_in_run)
    measurement = control = Measurement(np.nan, np.nan)
    error = None
    try:
        measurement, control = claim.check(context), claim.control(context)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    return Result(claim.id, measurement, control, time.perf_counter() - start, error)


def select(claims: Sequence[Claim], pattern: str) -> tuple[Claim, ...]:
    """The claims of an exact ID and its dotted children, or of a bare letter, in any case.

    Raises ValueError where there is none.
    """
    wanted = pattern[:1].upper() + pattern[1:].lower()

    def matches(name: str) -> bool:
        return name == wanted or name.startswith(f"{wanted}.") or (len(wanted) == 1 and name[0] == wanted)

    chosen = tuple(claim for claim in claims if matches(claim.id))
    if not chosen:
        near = get_close_matches(wanted, [claim.id for claim in claims], n=4, cutoff=0.3)
        hint = f"the nearest are {', '.join(near)}" if near else "`socket-theory claims` lists them"
        raise ValueError(f"there is no claim {pattern!r}: {hint}.")
    return chosen
