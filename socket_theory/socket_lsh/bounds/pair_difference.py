"""The law of w_a - w_b, two keys in one table, as Chernoff's bound needs it (S14).

w_a - w_b is a difference of two products over planes, so E exp(-lambda (w_a - w_b)) is no product over planes. But
E[w_a^i w_b^j] is the P-th power of an integral over one plane, and with x = w/sigma_+ in [0, 1]

    E exp(-t x_a + t x_b) = sum_ij (-t)^i/i! t^j/j! E[x_a^i x_b^j],

which n terms in each index give up to 2 exp(t) t^n/n!. That remainder, and the series with every moment of a bit off by
1e-12, are added to M, so that what is returned bounds from the safe side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from socket_theory.bounds.large_deviations import TiltedLaw
from socket_theory.core.arguments import Float
from socket_theory.socket_lsh.law import SoftKernel

_ORDERS = 128  # terms in each index: at the largest tilt the remainder is below 1e-25
_SMALLEST_TILT, _LARGEST_TILT = 1e-6, 25.0
_BIT_ERROR = 1e-12
_CENTRED_MOMENTS = 4


def pair_difference(
    kernel: SoftKernel, theta_a: float, theta_b: float, theta_ab: float, query_norm: float
) -> TiltedLaw:
    """w_a - w_b of keys at angles theta_a < theta_b to the query and theta_ab apart, at the lambda that minimises M.

    `TiltedLaw.chernoff` and `TiltedLaw.bahadur_rao` then bound the probability that L tables misrank the two keys.

    Raises
    ------
    ValueError
        If theta_a is not below theta_b, or the three are not the angles of three vectors.
    """
    from scipy.optimize import minimize_scalar

    if not float(theta_a) < float(theta_b):
        raise ValueError(f"theta_a={theta_a!r} is not below theta_b={theta_b!r}: pass the nearer key first.")
    top = replace(kernel, num_planes=1).weight_range()[1]
    orders = _ORDERS + _CENTRED_MOMENTS
    bits = kernel.bit.pair_powers(theta_a, theta_b, theta_ab, query_norm, orders, top)
    moments = bits**kernel.num_planes
    series = _Series(moments, (bits + _BIT_ERROR) ** kernel.num_planes - moments)
    limits = (math.log(_SMALLEST_TILT), math.log(_LARGEST_TILT))
    best = minimize_scalar(lambda log_tilt: series.largest(math.exp(log_tilt)), bounds=limits, method="bounded")
    return series.law(math.exp(best.x))


@dataclass(frozen=True, eq=False)
class _Series:
    """The double series: `moments` [n + 4, n + 4] of x_a and x_b, each at most `slack` too small."""

    moments: Float
    slack: Float

    def largest(self, tilt: float) -> float:
        """An upper bound on M."""
        return self._sum(self.moments, tilt, -1) + self._error(tilt)

    def law(self, tilt: float) -> TiltedLaw:
        mass = self.largest(tilt)
        error = 2 * self._error(tilt) / mass  # of E x_a^i x_b^j under the tilted law
        first, second, third, fourth = (self._difference_moment(k, tilt) / mass for k in range(1, 5))
        variance = second - first**2
        kurtosis = fourth - 4 * third * first + 6 * second * first**2 - 3 * first**4
        least, largest = variance - 16 * error, variance + 16 * error
        if not 0 < mass < 1 or least <= 0:
            return TiltedLaw(max(0.0, -math.log(mass)), 1.0, math.inf)
        asymmetry = math.sqrt(largest * (kurtosis + 400 * error)) / least**1.5
        return TiltedLaw(-math.log(mass), tilt * math.sqrt(least), asymmetry)

    def _difference_moment(self, order: int, tilt: float) -> float:
        """E (x_a - x_b)^order exp(-t (x_a - x_b))."""
        split = range(order + 1)
        parts = (math.comb(order, i) * (-1) ** (order - i) * self._at(i, order - i, tilt) for i in split)
        return math.fsum(parts)

    def _at(self, i: int, j: int, tilt: float) -> float:
        return self._sum(self.moments[i:, j:], tilt, -1)

    def _error(self, tilt: float) -> float:
        last = math.exp(tilt + _ORDERS * math.log(tilt) - math.lgamma(_ORDERS + 1))
        return self._sum(self.slack, tilt, 1) + 2 * last

    def _sum(self, table: Float, tilt: float, sign: int) -> float:
        terms = np.cumprod(np.concatenate([[1.0], tilt / np.arange(1, _ORDERS)]))
        signs = float(sign) ** np.arange(_ORDERS)
        return float((terms * signs) @ table[:_ORDERS, :_ORDERS] @ terms)
