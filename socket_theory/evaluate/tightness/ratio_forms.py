"""Every form of what finitely many tables cost in a weighted mean, which SOCKET (S9) and RACE (R5) share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from socket_theory.bounds.ratio import (
    bernstein_ratio_radius,
    chebyshev_radius,
    empirical_bernstein_radius,
    fourth_moment_radius,
    hoeffding_ratio_radius,
    plug_in_radius,
)
from socket_theory.bounds.residual import ResidualMoments, spare_table_moments
from socket_theory.evaluate.tightness.entry import DELTA, Compared, Entry, P

Float = NDArray[np.float64]
STANDARD_ERRORS, WEIGHTS_AT_ONCE = 2.0, 2_000_000


class Problem(Protocol):
    """A query, its keys and values, as the claims of both families have them."""

    @property
    def residuals(self) -> Float:
        """v_i - y about the exact target y [N, E]."""

    def draw_weights(self, count: int, rng: np.random.Generator) -> Float:
        """w_i^(l) of `count` fresh tables [count, N]."""


@dataclass(frozen=True, eq=False)
class TableSets:
    """Sets of L fresh tables, X_l(y) [sets, L, E] and Z_l [sets, L], and what the forms know of the problem.

    `moments` come from tables of their own, with two standard errors added: they are estimates, not a theorem.
    """

    x: Float
    z: Float
    moments: ResidualMoments
    weight_bound: float
    value_radius: float
    value_diameter: float
    mass: float

    @property
    def masses(self) -> Float:
        """Z-bar [sets]."""
        return np.asarray(self.z.mean(axis=1))

    @property
    def errors(self) -> Float:
        """|y_L - y| [sets]."""
        return np.asarray(np.linalg.norm(self.x.mean(axis=1), axis=-1) / self.masses)


def table_sums(problem: Problem, tables: int, rng: np.random.Generator) -> tuple[Float, Float]:
    """X_l(y) [tables, E] and Z_l [tables] of fresh tables."""
    residuals = problem.residuals
    size, parts = max(1, WEIGHTS_AT_ONCE // len(residuals)), []
    for start in range(0, tables, size):
        weights = problem.draw_weights(min(size, tables - start), rng)
        parts.append((weights @ residuals, weights.sum(axis=1)))
    x, z = zip(*parts, strict=True)
    return np.concatenate(x), np.concatenate(z)


def spare_moments(problem: Problem, tables: int, rng: np.random.Generator) -> ResidualMoments:
    return spare_table_moments(table_sums(problem, tables, rng)[0], STANDARD_ERRORS)


def diameter(values: Float) -> float:
    """max |v_i - v_j|, a block of rows at a time."""
    squares = (values * values).sum(axis=1)
    blocks = (slice(start, start + 512) for start in range(0, len(values), 512))
    furthest = max(float((squares[rows, None] + squares - 2 * values[rows] @ values.T).max()) for rows in blocks)
    return float(np.sqrt(furthest))


def _hoeffding(s: TableSets) -> Compared:
    tables = s.z.shape[1]
    return hoeffding_ratio_radius(DELTA, tables, s.weight_bound, s.value_radius, s.mass), s.errors


def _plug_in(s: TableSets) -> Compared:
    return plug_in_radius(DELTA, s.z.shape[1], s.weight_bound, s.value_radius, s.masses), s.errors


def _bernstein(s: TableSets) -> Compared:
    known = s.moments.second, s.weight_bound, s.value_radius, s.masses
    return bernstein_ratio_radius(DELTA, s.z.shape[1], *known), s.errors


def _chebyshev(s: TableSets) -> Compared:
    return chebyshev_radius(DELTA, s.z.shape[1], s.moments.second, s.masses), s.errors


def _fourth_moment(s: TableSets) -> Compared:
    return fourth_moment_radius(DELTA, s.z.shape[1], s.moments, s.masses), s.errors


def _empirical_bernstein(s: TableSets) -> Compared:
    estimates = s.x.mean(axis=1) / s.masses[:, None]
    known = s.weight_bound, s.value_diameter
    pairs = zip(s.x - s.z[..., None] * estimates[:, None], s.z, strict=True)
    return [empirical_bernstein_radius(DELTA, x, z, *known) for x, z in pairs], s.errors


_ALIGNED = (
    "It lets every table weigh all keys with the largest weight and all values lie on one side of y, while in a table "
    "the weights differ and the values cancel."
)
_FORMS: tuple[tuple[str, str, str, Callable[[TableSets], Compared], str], ...] = (
    (
        "hoeffding",
        "Hoeffding form",
        "hoeffding_ratio_radius",
        _hoeffding,
        f"{_ALIGNED} Where it says nothing, L is below its condition, which takes all keys at the largest weight too.",
    ),
    ("plug-in", "plug-in form", "plug_in_radius", _plug_in, _ALIGNED),
    (
        "bernstein",
        "Bernstein form",
        "bernstein_ratio_radius",
        _bernstein,
        "Its variance is right, but its second term, which takes all keys at the largest weight, is the larger one.",
    ),
    (
        "chebyshev",
        "Chebyshev form",
        "chebyshev_radius",
        _chebyshev,
        "It has the right variance and Chebyshev's 1/sqrt(delta), 4.5 at delta = .05, where the mean of many tables is "
        "nearly normal.",
    ),
    (
        "fourth-moment",
        "fourth-moment form",
        "fourth_moment_radius",
        _fourth_moment,
        "Few tables hold most of the fourth moment, and its estimate has a large standard error, which is added twice.",
    ),
    (
        "empirical-bernstein",
        "empirical Bernstein form",
        "empirical_bernstein_radius",
        _empirical_bernstein,
        "It knows nothing exact: terms of 1/L have the largest weight on all keys, and where it says nothing the "
        "tables are too few for a divisor above 0.",
    ),
)


def ratio_entries(claim: str, sets: Callable[[P], TableSets]) -> tuple[Entry[P], ...]:
    """An entry for each form, of the claims S9.* or R5.*."""

    def entry(name: str, title: str, function: str, form: Callable[[TableSets], Compared], reason: str) -> Entry[P]:
        where = f"bounds.ratio.{function}"
        return Entry(f"{claim}.{name}", title, where, "tail", lambda problem: form(sets(problem)), reason)

    return tuple(entry(*given) for given in _FORMS)
