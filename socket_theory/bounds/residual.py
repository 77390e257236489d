"""Moments of a centred vector, and of the mean of L independent ones (S9)."""

from __future__ import annotations

from dataclasses import dataclass

from socket_theory.core.checks import require_count


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
