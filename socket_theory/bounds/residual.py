"""Moments of a centred vector X = sum_i w_i u_i of random weights, and of the mean of L independent ones (S9)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from socket_theory.core.arguments import Float, require_rows
from socket_theory.core.checks import require_count, require_numbers

_CHUNK_ROWS = 512


@dataclass(frozen=True)
class ResidualMoments:
    """s^2 = E |X|^2, tr Sigma^2 with Sigma = Cov X, and m_4 = E |X|^4, of one table."""

    second: float
    trace_square: float
    fourth: float

    def mean_fourth(self, num_tables: int) -> float:
        """E |mean of L tables|^4 = [m_4 + (L - 1)(s^4 + 2 tr Sigma^2)] / L^3, exactly (S9)."""
        count = require_count("num_tables", num_tables)
        return (self.fourth + (count - 1) * (self.second**2 + 2 * self.trace_square)) / count**3


def residual_covariance(covariance: Float, residuals: Float) -> Float:
    """Sigma = U' C U; its trace is s^2, and the sum of its squared entries tr Sigma^2.

    Shapes: covariance C [N, N] of the weights, residuals U [N, E] = v_i - y_tau -> [E, E].
    """
    return np.asarray(residuals.T @ covariance @ residuals)


def spare_table_moments(residuals: Float, deviations: float) -> ResidualMoments:
    """Each moment estimated without bias from spare tables, plus `deviations` of its estimated standard errors.

    The confidence is asymptotic, not a theorem: about normal_cdf(deviations) a moment. Tables that shaped y_tau, or the
    estimate that is being bounded, are not spare. tr Sigma^2 is a U-statistic: the mean of <X_l, X_m>^2 over l != m.

    Shapes: residuals [L, E] = X_l(y_tau) with the exact y_tau, L >= 2.

    Raises
    ------
    ValueError
        For fewer than 2 tables, residuals that are not [L, E], or NaN.
    """
    residuals = require_rows("residuals", residuals)
    if require_numbers("deviations", deviations).ndim or not np.isfinite(deviations):
        raise ValueError(f"deviations={deviations!r} was given: pass a finite number of standard errors.")
    count = require_count("the number of spare tables", len(residuals), least=2)
    square = np.einsum("le,le->l", residuals, residuals)
    partners = np.empty(count)
    for start in range(0, count, _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        partners[rows] = ((residuals[rows] @ residuals.T) ** 2).sum(axis=1)
    partners = (partners - square**2) / (count - 1)

    def upper(terms: Float, order: int) -> float:
        return float(terms.mean() + deviations * order * terms.std(ddof=1) / np.sqrt(count))

    return ResidualMoments(upper(square, 1), upper(partners, 2), upper(square**2, 1))
