"""|y_{tau,L,M} - y*| <= sampling + finite tables + temperature, the form of the paper's Theorem 3 (S12)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from socket_theory.core.arguments import nonnegative_number, require_delta

Radius = Callable[[float], float]


@dataclass(frozen=True)
class ErrorTerms:
    """The three terms, each to be printed beside what was measured."""

    sampling: float
    finite_tables: float
    temperature: float

    @property
    def total(self) -> float:
        return self.sampling + self.finite_tables + self.temperature


def end_to_end(
    delta: float, *, finite_tables: Radius, temperature: float, sampling: Radius | None = None, table_events: int = 1
) -> ErrorTerms:
    """All terms at once, together exceeded with probability at most delta.

    Parameters
    ----------
    delta : float
        Total failure probability, split evenly over the random events.
    finite_tables : delta -> radius
        A form of S9, for instance `lambda d: float(chebyshev_radius(d, L, s2, realised_mass))`.
    temperature : float
        A form of S11, which is deterministic and costs no probability.
    sampling : delta -> radius, optional
        A form of S10. None for the estimator without sampling, y_{tau,L} (the paper's Remark 4).
    table_events : {1, 2}
        2 for `hoeffding_ratio_radius`, which spends half of its delta on the numerator and half on Z-bar, so that delta
        is split in three; 1 for the forms that divide by the realised Z-bar.

    Raises
    ------
    ValueError
        If delta is not in (0, 1), temperature is negative or not finite, or table_events is neither 1 nor 2.
    """
    if table_events not in (1, 2):
        raise ValueError(f"table_events={table_events!r} was given: pass 1, or 2 for the Hoeffding form of S9.")
    share = require_delta(delta) / (table_events + (sampling is not None))
    bias = nonnegative_number("temperature", temperature)
    drawn = 0.0 if sampling is None else sampling(share)
    return ErrorTerms(drawn, finite_tables(share * table_events), bias)
