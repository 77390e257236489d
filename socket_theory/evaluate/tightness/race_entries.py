"""Every bound of RACE, R3 to R6, with what it is compared with."""

from __future__ import annotations

import numpy as np

from socket_theory.evaluate.tightness.entry import DELTA, Compared, Entry
from socket_theory.evaluate.tightness.race_setting import ANGLES, ROWS, RaceSetting
from socket_theory.evaluate.tightness.ratio_forms import ratio_entries
from socket_theory.evaluate.tightness.table_sets import Float
from socket_theory.race.bounds.bias import kernel_bias_bound, uniform_kernel_bias_bound
from socket_theory.race.bounds.causal import (
    causal_fourth_moment_radius,
    causal_moment_radius,
    causal_plug_in_radius,
    diameters_so_far,
    row_shares,
)
from socket_theory.race.bounds.entries import bernstein_entry_radius, hoeffding_entry_radius
from socket_theory.race.bounds.rows import entrywise_radius, paper_row_radius


def _kernel_bias(s: RaceSetting) -> Compared:
    return kernel_bias_bound(s.kernel, ANGLES, *s.norms), _bias(s)


def _uniform_bias(s: RaceSetting) -> Compared:
    return np.broadcast_to(uniform_kernel_bias_bound(s.kernel, *s.norms), ANGLES.shape), _bias(s)


def _bias(s: RaceSetting) -> Float:
    return np.abs(s.kernel.mean(ANGLES, *s.norms) - s.kernel.hard_kernel(ANGLES))


def _entry_hoeffding(s: RaceSetting) -> Compared:
    return np.full(ANGLES.shape, hoeffding_entry_radius(s.kernel, DELTA, s.num_tables)), s.entry_errors


def _entry_bernstein(s: RaceSetting) -> Compared:
    return bernstein_entry_radius(s.kernel, DELTA, s.num_tables, ANGLES, *s.norms), s.entry_errors


def _paper_row(s: RaceSetting) -> Compared:
    """With Hoeffding's radius of an entry at delta / N, so that it holds for all keys of the row at once."""
    error = hoeffding_entry_radius(s.kernel, DELTA / s.num_keys, s.num_tables)
    distance = np.linalg.norm(s.row.residuals, axis=1).mean()
    return paper_row_radius(error, distance, s.row.kernel_values.mean()), s.sets.errors


def _entrywise(s: RaceSetting) -> Compared:
    distances = np.linalg.norm(s.row.residuals, axis=1).sum()
    return entrywise_radius(s.kernel, DELTA, s.num_tables, s.num_keys, distances, s.sets.masses), s.sets.errors


def _furthest(s: RaceSetting, radii: Float) -> Compared:
    """1 against the largest error over radius of a triangle's rows, but the first, which is exact."""
    return 1.0, (s.triangle_sets[0][:, 1:] / radii[:, 1:]).max(axis=1)


def _causal_plug_in(s: RaceSetting) -> Compared:
    spread = diameters_so_far(s.triangle.values)
    known = s.kernel, s.num_tables, spread, s.triangle_sets[1]
    return _furthest(s, causal_plug_in_radius(row_shares(DELTA, ROWS), *known))


def _causal_fourth_moment(s: RaceSetting) -> Compared:
    known = s.num_tables, s.triangle_moments, s.triangle_sets[1]
    return _furthest(s, causal_fourth_moment_radius(row_shares(DELTA, ROWS), *known))


def _causal_moment(s: RaceSetting) -> Compared:
    spread = s.triangle.distances.max(axis=1)
    known = s.kernel, s.num_tables, spread, s.triangle_moments, s.triangle_sets[1]
    return _furthest(s, causal_moment_radius(row_shares(DELTA, ROWS), *known))


_SIGNS = "It adds up what either side may be thrown to, while at an angle well above 0 errors of both signs cancel."
_ABSOLUTE = "It adds up the errors of all entries with their absolute values, as if no two ever cancelled."
_FEW = " Where it says nothing, the radius of an entry is beyond the mean weight."
_UNION = " The union over rows adds a logarithm, while the errors of neighbouring rows are nearly the same."
BIAS, ENTRIES, ROW, CAUSAL = (f"race.bounds.{name}" for name in ("bias", "entries", "rows", "causal"))

RACE_ENTRIES: tuple[Entry[RaceSetting], ...] = (
    Entry(
        "R3.bias",
        "kernel bias, by the bit's",
        f"{BIAS}.kernel_bias_bound",
        "value",
        _kernel_bias,
        "The derivative of the power is taken at the larger end, and a small beta has a bias that is no small step.",
    ),
    Entry("R3.bias", "kernel bias, all angles", f"{BIAS}.uniform_kernel_bias_bound", "value", _uniform_bias, _SIGNS),
    Entry(
        "R4.hoeffding",
        "entries, Hoeffding",
        f"{ENTRIES}.hoeffding_entry_radius",
        "tail",
        _entry_hoeffding,
        "It knows the range of a weight and not its variance.",
    ),
    Entry(
        "R4.bernstein",
        "entries, Bernstein",
        f"{ENTRIES}.bernstein_entry_radius",
        "tail",
        _entry_bernstein,
        "With so few tables the second term, of the range alone, is the larger.",
    ),
    *ratio_entries("R5", lambda s: s.sets),
    Entry("R5.paper", "the paper's form, by entries", f"{ROW}.paper_row_radius", "tail", _paper_row, _ABSOLUTE + _FEW),
    Entry("R6.sharper", "a row, by entries", f"{ROW}.entrywise_radius", "tail", _entrywise, _ABSOLUTE),
    Entry(
        "R6.union",
        "all causal rows, plug-in",
        f"{CAUSAL}.causal_plug_in_radius",
        "tail",
        _causal_plug_in,
        "It has the largest weight on all keys of a row and the diameter of the values." + _UNION,
    ),
    Entry(
        "R6.union",
        "all causal rows, fourth moment",
        f"{CAUSAL}.causal_fourth_moment_radius",
        "tail",
        _causal_fourth_moment,
        "At delta / 64 a fourth moment is far from a normal tail." + _UNION,
    ),
    Entry(
        "R6.sharper",
        "all causal rows, the smaller",
        f"{CAUSAL}.causal_moment_radius",
        "tail",
        _causal_moment,
        "At delta / 64 a fourth moment is far from a normal tail, and so is Bernstein's second term." + _UNION,
    ),
)
