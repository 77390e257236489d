"""Every form of what finitely many tables cost in a weighted mean, which SOCKET (S9) and RACE (R5) share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from socket_theory.bounds.ratio import (
    bernstein_ratio_radius,
    chebyshev_radius,
    empirical_bernstein_radius,
    fourth_moment_radius,
    hoeffding_ratio_radius,
    plug_in_radius,
)
from socket_theory.bounds.ratio_variance import variance_radius
from socket_theory.bounds.spare_sets import spare_set_radius, spare_sets_needed
from socket_theory.evaluate.tightness.entry import DELTA, Compared, Entry, P
from socket_theory.evaluate.tightness.table_sets import Float, TableSets


def _hoeffding(s: TableSets) -> Compared:
    tables = s.z.shape[1]
    return hoeffding_ratio_radius(DELTA, tables, s.weight_bound, s.value_radius, s.mass), s.errors


def _plug_in(s: TableSets) -> Compared:
    return plug_in_radius(DELTA, s.z.shape[1], s.norm_bound, s.masses), s.errors


def _bernstein(s: TableSets) -> Compared:
    return bernstein_ratio_radius(DELTA, s.z.shape[1], s.moments.second, s.norm_bound, s.masses), s.errors


def _chebyshev(s: TableSets) -> Compared:
    return chebyshev_radius(DELTA, s.z.shape[1], s.moments.second, s.masses), s.errors


def _fourth_moment(s: TableSets) -> Compared:
    return fourth_moment_radius(DELTA, s.z.shape[1], s.moments, s.masses), s.errors


def _empirical_bernstein(s: TableSets) -> Compared:
    def radius(x: Float, z: Float) -> float:
        shift = x.mean(axis=0) / z.mean()
        return empirical_bernstein_radius(DELTA, x - z[:, None] * shift, z, s.weight_range, s.residuals - shift)

    return [radius(x, z) for x, z in zip(s.x, s.z, strict=True)], s.errors


def _variance(s: TableSets) -> Compared:
    return variance_radius(DELTA, s.z.shape[1], s.moments, s.masses), s.errors


def _spare_sets(s: TableSets) -> Compared:
    """The spare sets of each set are the 19 that follow it, in a circle."""
    following = [np.roll(s.errors, -step) for step in range(1, spare_sets_needed(DELTA) + 1)]
    return [spare_set_radius(DELTA, spare) for spare in np.stack(following, axis=1)], s.errors


_ALIGNED = (
    "It lets every table weigh all keys with the largest weight and all values lie on one side of y, while in a table "
    "the weights differ and the values cancel."
)
_EITHER_END = (
    "It lets every weight be at whichever end of its range takes X furthest, all in one direction, while in a table "
    "the values cancel."
)
Form = tuple[str, str, str, Callable[[TableSets], Compared], str]
_FORMS: tuple[Form, ...] = (
    (
        "hoeffding",
        "Hoeffding form",
        "ratio.hoeffding_ratio_radius",
        _hoeffding,
        f"{_ALIGNED} Where it says nothing, L is below its condition, which takes all keys at the largest weight too.",
    ),
    ("plug-in", "plug-in form", "ratio.plug_in_radius", _plug_in, _EITHER_END),
    (
        "bernstein",
        "Bernstein form",
        "ratio.bernstein_ratio_radius",
        _bernstein,
        "Its variance is right, but its second term, which has every weight at whichever end of its range takes X "
        "furthest, is the larger one.",
    ),
    (
        "chebyshev",
        "Chebyshev form",
        "ratio.chebyshev_radius",
        _chebyshev,
        "It has the right variance and Chebyshev's 1/sqrt(delta), 4.5 at delta = .05, where the mean of many tables is "
        "nearly normal.",
    ),
    (
        "fourth-moment",
        "fourth-moment form",
        "ratio.fourth_moment_radius",
        _fourth_moment,
        "Few tables hold most of the fourth moment, and its estimate has a large standard error, which is added twice.",
    ),
    (
        "empirical-bernstein",
        "empirical Bernstein form",
        "ratio.empirical_bernstein_radius",
        _empirical_bernstein,
        "It knows nothing exact, not even y: terms of 1/L allow for every mean of the values and for every weight in "
        "its range, and where it says nothing the tables are too few for a divisor above 0.",
    ),
)
SHARPER_FORMS: tuple[Form, ...] = (
    (
        "variance",
        "variance form",
        "ratio_variance.variance_radius",
        _variance,
        "Few tables hold most of Var |X|^2, and its estimate has a large standard error, which is added twice.",
    ),
    (
        "spare-sets",
        "the largest of 19 spare sets",
        "spare_sets.spare_set_radius",
        _spare_sets,
        "Where few tables hold most of the error, the largest error of 19 sets varies from one draw to the next.",
    ),
)


def ratio_entries(claim: str, sets: Callable[[P], TableSets], further: tuple[Form, ...] = ()) -> tuple[Entry[P], ...]:
    """An entry for each form, of the claims S9.* or R5.*, and for forms that are not claimed of both."""

    def entry(name: str, title: str, function: str, form: Callable[[TableSets], Compared], reason: str) -> Entry[P]:
        where = f"bounds.{function}"
        return Entry(f"{claim}.{name}", title, where, "tail", lambda problem: form(sets(problem)), reason)

    return tuple(entry(*given) for given in (*_FORMS, *further))
