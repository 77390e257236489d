"""What finitely many draws cost, given the tables: |y_{tau,L,M} - y_{tau,L}| with probability at least 1 - delta (S10).

Both laws draw tokens independently from the realised weights w-bar and are unbiased for y_{tau,L}; so the bounds hold
conditionally on the tables, with probability over the draws alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from socket_theory.bounds.arguments import Float, require_nonnegative
from socket_theory.bounds.concentration import bernstein_count, bernstein_radius, hoeffding_count, hoeffding_radius


@dataclass(frozen=True)
class SamplingSpread:
    """The spread of one draw about y_{tau,L}: its largest norm, and the trace of its covariance."""

    radius: float
    variance: float

    def hoeffding(self, delta: float, num_samples: int) -> float:
        """radius sqrt(2 ln(2/delta) / M)."""
        return float(hoeffding_radius(delta, num_samples, self.radius))

    def bernstein(self, delta: float, num_samples: int) -> float:
        """Bernstein's radius of a mean of M draws."""
        return float(bernstein_radius(delta, num_samples, self.variance, self.radius))

    def hoeffding_samples(self, epsilon: float, delta: float) -> int:
        """The smallest M with `hoeffding` <= epsilon."""
        return hoeffding_count(epsilon, delta, self.radius)

    def bernstein_samples(self, epsilon: float, delta: float) -> int:
        """The smallest M with `bernstein` <= epsilon."""
        return bernstein_count(epsilon, delta, self.variance, self.radius)


def plain_spread(weights: Float, values: Float) -> SamplingSpread:
    """J ~ w-bar / Z-bar, averaging v_J: radius D' = max |v_i - y_{tau,L}| over tokens of positive weight.

    Shapes: weights w-bar [N], values [N, E].
    """
    return _spread(_probabilities(weights), values)


def value_aware_spread(weights: Float, values: Float) -> SamplingSpread:
    """J ~ w-bar_i |v_i| / S, averaging (S / Z-bar) v_J / |v_J|: radius at most 2 S / Z-bar, variance never above plain.

    Not shift-invariant: pass values - c for draws proportional to w-bar |v - c|. If every |v_i| is 0 the output is 0.

    Shapes: weights w-bar [N], values [N, E].
    """
    norms = np.sqrt((values * values).sum(axis=-1))
    shares = _probabilities(weights) * norms
    scale = shares.sum()
    if scale == 0:
        return SamplingSpread(0.0, 0.0)
    return _spread(shares / scale, scale * values / np.where(norms > 0, norms, 1)[:, None])


def _probabilities(weights: Float) -> Float:
    positive = require_nonnegative("weights", weights)
    if positive.sum() == 0:
        raise ValueError(
            "weights sum to 0, so there is no law to draw from: pass the mean soft collisions of the tables."
        )
    return np.asarray(positive / positive.sum())


def _spread(law: Float, outcomes: Float) -> SamplingSpread:
    centred = outcomes - law @ outcomes
    squares = (centred * centred).sum(axis=-1)
    return SamplingSpread(float(np.sqrt(squares[law > 0].max())), float(law @ squares))
