"""What finitely many draws cost, given the tables: |y_{tau,L,M} - y_{tau,L}| with probability at least 1 - delta (S10).

Both laws draw tokens independently from the realised weights w-bar and are unbiased for y_{tau,L}; so the bounds hold
conditionally on the tables, with probability over the draws alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from socket_theory.bounds.concentration import bernstein_radius, bernstein_terms, hoeffding_radius, hoeffding_terms
from socket_theory.core.arguments import (
    Float,
    nonnegative_number,
    positive_number,
    require_nonnegative,
    require_rows,
    round_up,
)


@dataclass(frozen=True)
class SamplingSpread:
    """The spread of one draw about y_{tau,L}: its largest norm, and the trace of its covariance.

    Raises TypeError or ValueError if one of them is not a finite number of at least 0.
    """

    radius: float
    variance: float

    def __post_init__(self) -> None:
        for name in ("radius", "variance"):
            object.__setattr__(self, name, nonnegative_number(name, getattr(self, name)))

    def hoeffding(self, delta: float, num_samples: int) -> float:
        """radius sqrt(2 ln(2/delta) / M)."""
        return float(hoeffding_radius(delta, num_samples, self.radius))

    def bernstein(self, delta: float, num_samples: int) -> float:
        """Bernstein's radius of a mean of M draws."""
        return float(bernstein_radius(delta, num_samples, self.variance, self.radius))

    def hoeffding_samples(self, epsilon: float, delta: float) -> int:
        """The smallest M with `hoeffding` <= epsilon."""
        terms = hoeffding_terms(positive_number("epsilon", epsilon), delta, self.radius)
        return round_up(terms, "epsilon", epsilon)

    def bernstein_samples(self, epsilon: float, delta: float) -> int:
        """The smallest M with `bernstein` <= epsilon, for a spread that does not depend on M."""
        terms = bernstein_terms(positive_number("epsilon", epsilon), delta, self.variance, self.radius)
        return round_up(terms, "epsilon", epsilon)


def plain_spread(weights: Float, values: Float) -> SamplingSpread:
    """J ~ w-bar / Z-bar, averaging v_J: radius D' = max |v_i - y_{tau,L}| over tokens of positive weight.

    Shapes: weights w-bar [N], values [N, E].
    """
    law = _probabilities(weights)
    return _spread(law, require_rows("values", values, len(law)))


def value_aware_spread(weights: Float, values: Float) -> SamplingSpread:
    """J ~ w-bar_i |v_i| / S, averaging (S / Z-bar) v_J / |v_J|: radius at most 2 S / Z-bar, variance never above plain.

    Not shift-invariant: pass values - c for draws proportional to w-bar |v - c|. If every |v_i| is 0 the output is 0.
    The norms here are exact; an estimator that rounds them to bfloat16 may exceed this spread by about 2^-7 relative.

    Shapes: weights w-bar [N], values [N, E].
    """
    law = _probabilities(weights)
    values = require_rows("values", values, len(law))
    rows = np.where(law[:, None] > 0, values, 0)
    norms = np.sqrt((rows * rows).sum(axis=-1))
    shares = law * norms
    scale = shares.sum()
    if scale == 0:
        return SamplingSpread(0.0, 0.0)
    return _spread(shares / scale, scale * rows / np.where(norms > 0, norms, 1)[:, None])


def _probabilities(weights: Float) -> Float:
    positive = require_nonnegative("weights", weights)
    if positive.ndim != 1:
        raise ValueError(f"weights has shape {positive.shape}: pass [N], one mean soft collision for each key.")
    if positive.sum() == 0:
        raise ValueError(
            "weights sum to 0, so there is no law to draw from: pass the mean soft collisions of the tables."
        )
    return np.asarray(positive / positive.sum())


def _spread(law: Float, outcomes: Float) -> SamplingSpread:
    drawn = law > 0
    centred = outcomes[drawn] - law @ outcomes
    squares = (centred * centred).sum(axis=-1)
    return SamplingSpread(float(np.sqrt(squares.max())), float(law[drawn] @ squares))
