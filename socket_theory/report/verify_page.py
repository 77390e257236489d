"""The report of `socket-theory verify`: every claim with its statement, its numbers and its control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from socket_theory.core.claim import TOTAL_FALSE_ALARM, Claim, Effort, Result
from socket_theory.evaluate.provenance import source_commit, versions
from socket_theory.report.gauge import DECADES, Gauge
from socket_theory.report.page import render


@dataclass(frozen=True)
class Entry:
    """A claim beside its result."""

    claim: Claim
    result: Result
    gauge: Gauge

    @property
    def verdict(self) -> str:
        """In two or three words; "verified" where there is nothing to mend."""
        if self.result.error is not None:
            return "not measured"
        if not self.result.measurement.holds:
            return "does not hold"
        return "verified" if self.result.control.rejects else "control passes"


def verify_report(
    claims: Sequence[Claim], results: Sequence[Result], *, seed: int, effort: Effort, command: str
) -> str:
    """The HTML page of `results`; `claims` are those that were asked for, in order, and may be more.

    `command` is what to type for the same numbers. Equal arguments, commit and installed versions give equal text.
    """
    found = {result.id: result for result in results}
    entries = [
        Entry(claim, found[claim.id], Gauge.of(found[claim.id].measurement, found[claim.id].control))
        for claim in claims
        if claim.id in found
    ]
    return render(
        "verify.html",
        entries=entries,
        failed=[entry for entry in entries if not entry.result.verified],
        missing=[claim.id for claim in claims if claim.id not in found],
        holding=sum(entry.result.measurement.holds for entry in entries),
        rejected=sum(entry.result.control.rejects for entry in entries),
        seconds=sum(entry.result.seconds for entry in entries),
        seed=seed,
        effort=effort,
        command=command,
        false_alarm=TOTAL_FALSE_ALARM,
        decades=DECADES,
        commit=source_commit(),
        versions=versions(),
    )
