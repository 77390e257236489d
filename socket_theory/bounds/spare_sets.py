"""A bound on the error of L tables that is read off K other sets of L tables, without moments or ranges (S9).

With the exact y, the error |y_L - y| of a set of L spare tables is a number that can be computed. The errors of K such
sets and that of the set in use are K + 1 exchangeable numbers, so the last is among the r largest of all with
probability at most r/(K + 1), whatever their law. The r-th largest of the K is therefore exceeded with probability at
most r/(K + 1), over the spare tables and those in use: with probability 1/20 by 19 sets and their largest error. No
probability is spent on confidence.

A radius that knows nothing of the law of X and is finite needs S > L (1/(e delta) - 1) spare tables: where X = 0
except with probability 1/(S + L), all spare tables show 0 and yet just one of those in use does not, with probability
above L/(e (S + L)), and its X may be of any length. K L = L (1/delta - 1) is less than 3 times that at delta = 1/20.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from socket_theory.core.arguments import Float, require_above_zero, require_delta, require_nonnegative, require_rows
from socket_theory.core.checks import require_count


def spare_sets_needed(delta: float) -> int:
    """K = 1/delta - 1, rounded up: the fewest sets from which `spare_set_radius` is finite."""
    return math.ceil(1 / Fraction(require_delta(delta))) - 1


def spare_set_errors(residuals: Float, masses: Float, num_tables: int) -> Float:
    """|X-bar| / Z-bar of each set of `num_tables` = L consecutive spare tables, the tables left over being dropped.

    Shapes: residuals [S, E] = X_l(y) with the exact y, masses [S] = Z_l -> [S // L].
    """
    x, count = require_rows("residuals", residuals), require_count("num_tables", num_tables)
    z = require_above_zero("masses", masses)
    if z.shape != x.shape[:1]:
        raise ValueError(f"masses has shape {z.shape}: pass [{len(x)}], the sum of the weights of each spare table.")
    sets = len(x) // count
    if sets == 0:
        raise ValueError(f"{len(x)} spare tables were given: pass at least num_tables={count} of them.")
    means = x[: sets * count].reshape(sets, count, -1).mean(axis=1)
    return np.asarray(np.linalg.norm(means, axis=-1) / z[: sets * count].reshape(sets, count).mean(axis=1))


def spare_set_radius(delta: float, errors: Float) -> float:
    """The r-th largest of the errors of K spare sets with r = floor(delta (K + 1)); infinity for r = 0.

    Shapes: errors [K], from sets of as many tables as the set in use (`spare_set_errors`).
    """
    values = require_nonnegative("errors", errors)
    if values.ndim != 1:
        raise ValueError(f"errors has shape {values.shape}: pass [K], the error of each of K spare sets.")
    rank = math.floor(Fraction(require_delta(delta)) * (len(values) + 1))
    return float(np.sort(values)[-rank]) if rank else float("inf")
