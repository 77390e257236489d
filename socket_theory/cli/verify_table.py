"""The results of `socket-theory verify` as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from socket_theory.cli.columns import Column, print_fitted

if TYPE_CHECKING:
    from socket_theory.core.claim import Claim, Result

PIPED_WIDTH = 110
_COLUMNS = (
    Column("claim", right=False),
    Column("observed", drop=1),
    Column("allowed", drop=2),
    Column("tightness", drop=3),
    Column("holds", right=False),
    Column("control", right=False),
    Column("s", drop=4),
    Column("title", drop=5, least=8, elide=True),
)


def print_results(results: Sequence[Result], claims: Sequence[Claim], console: Console) -> None:
    """The table, then what was not measured and further numbers."""
    if not results:
        return
    titles = {claim.id: claim.title for claim in claims}
    print_fitted(console, _COLUMNS, [_cells(result, titles[result.id]) for result in results])
    for result in results:
        if result.error is not None:
            console.print(f"{result.id} was not measured. {result.error}", soft_wrap=True, markup=False)
        if result.measurement.detail:
            terms = ", ".join(f"{name} {_number(value)}" for name, value in result.measurement.detail)
            console.print(f"{result.id}: {terms}", soft_wrap=True)


def _cells(result: Result, title: str) -> list[str | Text]:
    measured = result.measurement
    holds = "yes" if measured.holds else Text("NO", "bold red")
    control = "rejected" if result.control.rejects else Text("FAILED" if result.error else "PASSES", "bold red")
    numbers = (_number(measured.observed), _number(measured.allowed), _number(measured.tightness))
    return [result.id, *numbers, holds, control, f"{result.seconds:.1f}", title]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
