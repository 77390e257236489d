"""Moments of a centred vector X = sum_i w_i u_i of random weights, and of the mean of L independent ones (S9)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from socket_theory.core.arguments import Float, nonnegative_number, require_rows
from socket_theory.core.checks import require_count, require_numbers

_LARGEST = 1e150
"""Of a moment: its square stays in float64."""


@dataclass(frozen=True)
class ResidualMoments:
    """s^2 = E |X|^2, tr Sigma^2 with Sigma = Cov X, m_4 = E |X|^4 and Var |X|^2, of one table: exact, or upper bounds.

    `square_variance` is m_4 - s^4 where it is left out, which is right for exact moments. Upper bounds of m_4 and of
    s^2 do not give one of their difference, so `spare_table_moments` estimates it by itself.
    """

    second: float
    trace_square: float
    fourth: float
    square_variance: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None:
                moderate = nonnegative_number(name, value)
                if moderate > _LARGEST:
                    raise ValueError(
                        f"{name}={value!r} was given: scale the values, so that it is at most {_LARGEST:g}."
                    )

    def mean_fourth(self, num_tables: int) -> float:
        """E |mean of L tables|^4 = [m_4 + (L - 1)(s^4 + 2 tr Sigma^2)] / L^3, exactly (S9)."""
        count = require_count("num_tables", num_tables)
        return (self.fourth + (count - 1) * (self.second**2 + 2 * self.trace_square)) / count**3

    def mean_square_variance(self, num_tables: int) -> float:
        """Var |mean of L tables|^2 = [Var |X|^2 + 2 (L - 1) tr Sigma^2] / L^3, exactly (S9)."""
        count = require_count("num_tables", num_tables)
        variance = self.fourth - self.second**2 if self.square_variance is None else self.square_variance
        return (max(variance, 0.0) + 2 * (count - 1) * self.trace_square) / count**3


def residual_covariance(covariance: Float, residuals: Float) -> Float:
    """Sigma = U' C U; its trace is s^2, and the sum of its squared entries tr Sigma^2.

    Shapes: covariance C [N, N] of the weights, residuals U [N, E] = v_i - y_tau -> [E, E].
    """
    return np.asarray(residuals.T @ covariance @ residuals)


def spare_table_moments(residuals: Float, deviations: float) -> ResidualMoments:
    """Each moment estimated without bias from spare tables, plus `deviations` of its estimated standard errors.

    The confidence is asymptotic, not a theorem: about normal_cdf(deviations) a moment. No theorem that knows nothing of
    the law of X could be much better with fewer than about L/delta tables, and with so many `spare_sets` needs no
    moments. Tables that shaped y_tau, or the estimate that is being bounded, are not spare. tr Sigma^2 is a
    U-statistic: the mean of <X_l, X_m>^2 over l != m.

    Shapes: residuals [L, E] = X_l(y_tau) with the exact y_tau, L >= 3: of two tables no standard error of their pair
    can be estimated.

    Raises
    ------
    ValueError
        For fewer than 3 tables, residuals that are not [L, E], or NaN.
    """
    residuals = require_rows("residuals", residuals)
    if require_numbers("deviations", deviations).ndim or not np.isfinite(deviations):
        raise ValueError(f"deviations={deviations!r} was given: pass a finite number of standard errors.")
    count = require_count("the number of spare tables", len(residuals), least=3)
    square = np.einsum("le,le->l", residuals, residuals)
    partners = np.einsum("le,le->l", residuals @ (residuals.T @ residuals), residuals)
    partners = (partners - square**2) / (count - 1)

    def upper(terms: Float, order: int) -> float:
        return float(terms.mean() + deviations * order * terms.std(ddof=1) / np.sqrt(count))

    spread = (square - square.mean()) ** 2 * (count / (count - 1))
    return ResidualMoments(upper(square, 1), upper(partners, 2), upper(square**2, 1), upper(spread, 1))
