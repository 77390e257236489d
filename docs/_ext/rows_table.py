"""Time of a step by where keys and values lie, from the JSON of `bench decode` and of `bench santa`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from page_parts import Row, case_of, spread, table

from socket_gpu.bench.layouts import LAYOUTS, OWN

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DECODE, SANTA = "decode-h200.json", "santa-h200.json"


def rows_table(decode: Row, santa: Row) -> str:
    """A row for each layout: the steps of both methods, and how much longer they take than over own arrays."""
    cells = [[layout, *_cells(decode, layout), *_cells(santa, layout)] for layout in LAYOUTS]
    return table("keys and values | SOCKET, µs | over own arrays | SANTA, µs | over own arrays", cells)


def _cells(run: Row, layout: str) -> tuple[str, str]:
    row, own = _measured(run, layout), _measured(run, OWN)
    return spread(row), f"{100 * (row['us'] / own['us'] - 1):+.1f} %"


def _measured(run: Row, layout: str) -> Row:
    """The row of a layout; of own arrays the one with the settings and the shape of the rows of other layouts."""

    def like(row: Row) -> Row:
        return {name: value for name, value in row["settings"].items() if name != "rows"}

    other = next(row for row in run["rows"] if "rows" in row["settings"])
    alike = [row for row in run["rows"] if case_of(row) == case_of(other) and like(row) == like(other)]
    return next(row for row in alike if row["settings"].get("rows", OWN) == layout)


def write_page(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "benchmarks"
    decode, santa = (json.loads((folder / name).read_text()) for name in (DECODE, SANTA))
    page = folder / "generated" / "rows.md"
    page.parent.mkdir(exist_ok=True)
    text = f"{decode['device']}, commit {decode['commit'][:7]}.\n\n{rows_table(decode, santa)}"
    if not page.exists() or page.read_text() != text:
        page.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
