"""Observed against allowed on one axis for all claims: the allowance in the middle, a factor of ten a tick."""

from __future__ import annotations

import math
from dataclasses import dataclass

from socket_theory.core.claim import Measurement

DECADES = 3


@dataclass(frozen=True)
class Mark:
    """A place on the axis: x from 0 to 1, 1/2 at the allowance; `beyond` is -1 or 1 for what lies off its ends."""

    x: float
    beyond: int


def share(measurement: Measurement) -> float:
    """observed / allowed: at most 1 where the measurement holds, 0 where 0 of 0 was seen, NaN where it was not made."""
    seen, limit = measurement.observed, measurement.allowed
    if math.isnan(seen) or math.isnan(limit):
        return math.nan
    if seen == limit != 0:
        return 1.0
    if limit > 0:
        return max(seen, 0.0) / limit
    return math.inf if seen > limit else 0.0


def place(ratio: float) -> Mark | None:
    """Where a ratio to the allowance lies; None for NaN."""
    if math.isnan(ratio):
        return None
    decades = math.log10(ratio) if 0 < ratio < math.inf else math.copysign(math.inf, ratio - 1)
    x = 0.5 + min(max(decades, -DECADES), DECADES) / (2 * DECADES)
    return Mark(round(x, 4), (decades > DECADES) - (decades < -DECADES))


@dataclass(frozen=True)
class Gauge:
    """The marks of one claim: its check, its control, and the measured quantile on the scale of the bound."""

    check: Mark | None
    control: Mark | None
    quantile: Mark | None

    @classmethod
    def of(cls, check: Measurement, control: Measurement) -> Gauge:
        """The marks of a check and of its control."""
        tightness = check.tightness
        return cls(
            place(share(check)),
            place(share(control)),
            None if tightness is None else place(1 / tightness if tightness > 0 else math.inf),
        )
