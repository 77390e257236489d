"""R6: every row of causal attention at once, and how much sharper that is than a union over entries."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.claim import Claim, Context, Measurement, combine, worst
from socket_theory.core.thresholds import failure_rate, tightness
from socket_theory.race.bounds.causal import (
    causal_fourth_moment_radius,
    causal_moment_radius,
    causal_plug_in_radius,
    diameters_so_far,
    row_shares,
    stream_shares,
)
from socket_theory.race.bounds.rows import entrywise_radius
from socket_theory.race.claims.triangles import KERNEL, TABLES, TOKENS, triangle

Float = NDArray[np.float64]
Shares = Callable[[float, int], Float]
DELTA, SMALL_DELTA, ROUNDING = 0.3, 0.05, 1e-12
PAIRS = TOKENS * (TOKENS + 1) // 2


def _no_union(delta: float, rows: int) -> Float:
    return np.full(rows, delta)


def _rows(context: Context, forms: tuple[Shares, ...]) -> Measurement:
    """How often some row exceeds its radius, in the fourth-moment form with these shares, against delta."""
    data, trials = triangle(context), context.samples(200)
    moments, parts = data.moments(context), []
    errors, masses = (np.concatenate(part) for part in zip(*data.sets(context, trials), strict=True))
    for shares in forms:
        radii = causal_fourth_moment_radius(shares(DELTA, TOKENS), TABLES, moments, masses)
        missed = int(np.count_nonzero((errors > radii + ROUNDING).any(axis=1)))
        furthest = np.max(errors[:, 1:] / radii[:, 1:], axis=1)
        parts.append(failure_rate(missed, trials, DELTA, context.level(len(forms)), tightness(1.0, furthest, DELTA)))
    return combine(*parts)


def radii(context: Context, moments: bool) -> tuple[Float, Float]:
    """Ours and the union over entries at delta = .05 in rows 2 to 64 -> [63] each; the error of row 1 is 0.

    Without the Z-bar_t that divides both.
    """
    data, ones, shares = triangle(context), np.ones(TOKENS), row_shares(SMALL_DELTA, TOKENS)
    if moments:
        ours = causal_moment_radius(shares, KERNEL, TABLES, data.distances.max(axis=1), data.moments(context), ones)
    else:
        ours = causal_plug_in_radius(shares, KERNEL, TABLES, diameters_so_far(data.values), ones)
    return ours[1:], entrywise_radius(KERNEL, SMALL_DELTA, TABLES, PAIRS, data.distances.sum(axis=1), ones)[1:]


def _sharper(context: Context, moments: bool) -> Measurement:
    ours, entries = radii(context, moments)
    place, ratio = worst(ours, entries), entries / ours
    detail = ("entries/ours, median row", float(np.median(ratio))), ("entries/ours, last row", float(ratio[-1]))
    return Measurement(place.observed, place.allowed, place.allowed / place.observed, detail)


CLAIMS = (
    Claim(
        id="R6.union",
        title="Every causal row at once",
        statement="Row t of causal attention is R5 with the t keys up to it. With probability 1 - delta every row t "
        "keeps its radius (E|X-bar_t|^4/delta_t)^(1/4)/Z-bar_t at delta_t = delta/N, or for a stream without end at "
        "delta_t = 6 delta/(pi t)^2.",
        source="own proof; R5 and a union over rows",
        kind="tail",
        wrong="delta_t = delta, without a union, at delta = .3",
        check=partial(_rows, forms=(row_shares, stream_shares)),
        control=partial(_rows, forms=(_no_union,)),
    ),
    Claim(
        id="R6.sharper",
        title="Rows against entries",
        statement="At N = 64, L = 40, P = 1, beta = 2 and delta = .05 the union over rows, in the smaller of "
        "Bernstein's and the fourth moment's form, is below Hoeffding's union over all entries (t, j) in every row.",
        source="own measurement; X_t of independent signs grows like sqrt(t), and entry errors add up like t",
        kind="inequality",
        wrong="the plug-in form, whose norm bound lets no two errors cancel either",
        check=partial(_sharper, moments=True),
        control=partial(_sharper, moments=False),
    ),
)
