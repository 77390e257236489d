"""Tables that fit: where the width is too small, the least important columns are left out and named below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

_GAP = 2


@dataclass(frozen=True)
class Column:
    """`drop` says when it is left out, the highest first, 0 never. With `least` it may shrink to that many columns,
    in several lines, or, with `elide`, cut off."""

    heading: str
    drop: int = 0
    least: int | None = None
    elide: bool = False
    right: bool = True

    def width(self, cells: Sequence[Text]) -> int:
        return max(len(self.heading), *(cell.cell_len for cell in cells), 0)

    def least_width(self, cells: Sequence[Text]) -> int:
        return self.width(cells) if self.least is None else min(self.least, self.width(cells))


def print_fitted(console: Console, columns: Sequence[Column], rows: Sequence[Sequence[str | Text]]) -> None:
    """Print the rows under the columns, no wider than the console; a line names the columns that were left out."""
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    by_column = [(column, [row[place] for row in cells]) for place, column in enumerate(columns)]
    shown, left_out = list(by_column), []
    while _needed(shown) > console.width and any(column.drop for column, _ in shown):
        last = max(shown, key=lambda pair: pair[0].drop)
        shown.remove(last)
        left_out.append(last[0].heading)
    table = Table(box=None, pad_edge=False)
    room = console.width - _needed(shown)
    for column, entries in shown:
        width = min(column.width(entries), column.least_width(entries) + room)
        room -= width - column.least_width(entries)
        whole = column.least is None or column.elide
        justify: Literal["left", "right"] = "right" if column.right and column.least is None else "left"
        table.add_column(
            column.heading, justify=justify, no_wrap=whole, overflow="ellipsis" if whole else "fold", width=width
        )
    for row in zip(*(entries for _, entries in shown), strict=True):
        table.add_row(*row)
    console.print(table)
    if left_out:
        console.print(f"At {console.width} columns there is no room for {', '.join(left_out)}; --json has everything.")


def _needed(shown: Sequence[tuple[Column, Sequence[Text]]]) -> int:
    return sum(column.least_width(entries) for column, entries in shown) + _GAP * (len(shown) - 1)
