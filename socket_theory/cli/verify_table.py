"""The results of `socket-theory verify` as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from socket_theory.claims.engine import Claim, Result

_NUMBER_COLUMNS, _LEAST_TITLE, _PIPED_WIDTH = 58, 8, 110


def print_results(results: Sequence[Result], claims: Sequence[Claim], aside: bool) -> None:
    """The table, to the error output where `aside`."""
    from rich.console import Console
    from rich.table import Table

    titles = {claim.id: claim.title for claim in claims}
    console = Console(highlight=False, stderr=aside)
    if not console.is_terminal:
        console = Console(highlight=False, stderr=aside, width=_PIPED_WIDTH)
    table = Table(box=None, pad_edge=False)
    table.add_column("claim", no_wrap=True)
    for heading in ("observed", "allowed", "tightness"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("holds", "control"):
        table.add_column(heading, no_wrap=True)
    table.add_column("s", justify="right", no_wrap=True)
    room = console.width - _NUMBER_COLUMNS - max((len(result.id) for result in results), default=0)
    titled = room >= _LEAST_TITLE
    if titled:
        table.add_column("title", overflow="ellipsis", no_wrap=True, max_width=room)
    for result in results:
        measured = result.measurement
        holds = "yes" if measured.holds else "[bold red]NO[/]"
        control = "rejected" if result.control.rejects else f"[bold red]{'FAILED' if result.error else 'PASSES'}[/]"
        numbers = (_number(measured.observed), _number(measured.allowed), _number(measured.tightness))
        title = (titles[result.id],) if titled else ()
        table.add_row(result.id, *numbers, holds, control, f"{result.seconds:.1f}", *title)
    console.print(table)
    for result in results:
        if result.error is not None:
            console.print(f"{result.id} was not measured. {result.error}", soft_wrap=True, markup=False)
        if result.measurement.detail:
            terms = ", ".join(f"{name} {_number(value)}" for name, value in result.measurement.detail)
            console.print(f"{result.id}: {terms}", soft_wrap=True)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
