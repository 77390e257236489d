"""Large deviations of the mean of iid numbers D with E D > 0: how often it is not positive (S14).

Let M = E exp(-lambda D) for some lambda > 0. Under the tilted law, of density exp(-lambda D)/M, D has a standard
deviation s and a third absolute central moment r. For L iid copies

    P(mean <= 0)  =  M^L E_tilted[exp(lambda S) [S <= 0]]  <=  M^L,                        S = D_1 + ... + D_L,
    P(mean <= 0)  <=  M^L (1/(lambda s sqrt(2 pi)) + 2 C r/s^3) / sqrt L,

the second by the Berry-Esseen theorem under the tilted law (docs: theory, ranking). Both are proved at every L; the
saddlepoint value is an estimate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from socket_theory.core.arguments import require_delta, round_up
from socket_theory.core.checks import require_count

BERRY_ESSEEN = 0.4748  # for iid terms, Shevtsova 2011


@dataclass(frozen=True)
class TiltedLaw:
    """What the bounds need of one D at one lambda.

    Parameters
    ----------
    rate : float
        -ln M, or a lower bound on it; 0 where none above 0 is known.
    steepness : float
        lambda s, or a lower bound on it.
    asymmetry : float
        r/s^3, or an upper bound on it.
    """

    rate: float
    steepness: float
    asymmetry: float

    def chernoff(self, num_tables: int) -> float:
        """P(mean <= 0) <= M^L."""
        return math.exp(-self.rate * require_count("num_tables", num_tables))

    def bahadur_rao(self, num_tables: int) -> float:
        """P(mean <= 0) <= M^L min(1, (1/(lambda s sqrt(2 pi)) + 2 C r/s^3)/sqrt L): Chernoff's bound, corrected."""
        factor = 1 / (self.steepness * math.sqrt(2 * math.pi)) + 2 * BERRY_ESSEEN * self.asymmetry
        return self.chernoff(num_tables) * min(1.0, factor / math.sqrt(num_tables))

    def saddlepoint(self, num_tables: int) -> float:
        """M^L exp(x^2/2) Phi(-x), x = lambda s sqrt L: an estimate of P(mean <= 0), not a bound.

        It takes the tilted sum for a normal variable centred at 0, so lambda has to minimise M.
        """
        from scipy.special import log_ndtr

        reach = self.steepness * math.sqrt(require_count("num_tables", num_tables))
        return float(np.exp(-self.rate * num_tables + reach**2 / 2 + log_ndtr(-reach)))

    def chernoff_tables(self, failure: float) -> int:
        """The smallest L with `chernoff` <= failure."""
        goal = math.log(1 / require_delta(failure, "failure"))
        if self.rate == 0:
            raise ValueError("rate=0 was given: no number of tables is known to suffice, pass keys further apart.")
        return round_up(goal / self.rate, "rate", self.rate)

    def bahadur_rao_tables(self, failure: float) -> int:
        """The smallest L with `bahadur_rao` <= failure, which `chernoff_tables` is never below."""
        low, high = 0, self.chernoff_tables(failure)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.bahadur_rao(middle) <= failure else (middle, high)
        return high
