"""What dropping tokens costs exact softmax attention (S13). Deterministic, for any selector."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from socket_theory.core.arguments import Float, require_above_zero, require_nonnegative


def top_k_error_bound(captured_mass: ArrayLike, value_diameter: ArrayLike) -> Float:
    """|y - y_S| <= (1 - m) diam V, for S of true softmax mass m; diam V <= 2 max |v|.

    From the identity y - y_S = (1 - m)(y_rest - y_S), both means lying in the convex hull of the values.
    """
    return np.asarray((1 - _mass(captured_mass)) * require_nonnegative("value_diameter", value_diameter))


def captured_mass_for_error(epsilon: ArrayLike, value_diameter: ArrayLike) -> Float:
    """The smallest m with `top_k_error_bound` <= epsilon: max(0, 1 - epsilon / diam V)."""
    share = require_nonnegative("epsilon", epsilon) / require_above_zero("value_diameter", value_diameter)
    return np.maximum(0.0, 1 - share)


def _mass(captured_mass: ArrayLike) -> Float:
    mass = require_nonnegative("captured_mass", captured_mass)
    if not (mass <= 1 + 1e-9).all():
        raise ValueError(f"captured_mass={captured_mass!r} was given: pass softmax mass, between 0 and 1.")
    return np.minimum(mass, 1.0)
