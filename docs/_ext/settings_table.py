"""Error and speed of the same settings of SOCKET, from the JSON of `evaluate attention` and of `bench decode`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from page_parts import Case, Row, best_dense, case_of, ratio, table

from socket_gpu.socket_lsh.cases import RECOMMENDED
from socket_theory import Socket

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ATTENTION, SPEED = "attention-smollm2.json", "settings-h200.json"
SETTINGS = {
    "as released": Socket.as_released(),
    "default": Socket(),
    "recommended": RECOMMENDED,
}
CODE = {
    "as released": "`Socket.as_released()`",
    "default": "`Socket()`",
    "recommended": "`Socket(temperature=1.0)`",
}
CASES: tuple[Case, ...] = ((1, 32, 8, 32768), (1, 32, 8, 131072), (1, 32, 32, 131072))


def settings_table(attention: Row, speed: Row) -> str:
    """A row for dense attention and one for each setting: its error, and its time at each case with that over dense."""
    rows = [["dense attention", f"{0:.3f}", *_dense_cells(speed)]]
    for name, method in SETTINGS.items():
        rows.append([f"{name}, {CODE[name]}", f"{_error(attention, method):.3f}", *_cells(speed, method)])
    names = [f"{case[1]}/{case[2]} heads, {case[3] // 1024}K" for case in CASES]
    return table(" | ".join(["SOCKET", "error", *(f"{name}, µs | × dense" for name in names)]), rows)


def _error(attention: Row, method: Socket) -> float:
    rows = [row for row in attention["rows"] if row["method"] == "socket" and Socket(**row["settings"]) == method]
    return float(rows[0]["relative_error_mean"])


def _measured(speed: Row, case: Case, method: Socket) -> Row:
    rows = [row for row in speed["rows"] if row["method"] == "socket" and case_of(row) == case]
    names = asdict(method).keys()
    return next(row for row in rows if Socket(**{n: row["settings"][n] for n in names}) == method)


def _cells(speed: Row, method: Socket) -> list[str]:
    rows = [_measured(speed, case, method) for case in CASES]
    return [cell for row in rows for cell in (f"{row['us']:.0f}", ratio(row))]


def _dense_cells(speed: Row) -> list[str]:
    rows = [best_dense(speed, _measured(speed, case, Socket())) for case in CASES]
    return [cell for row in rows if row for cell in (f"{row['us']:.0f}", "1.00×")]


def committed_table(docs: Path) -> str:
    """The table of the committed results."""
    attention, speed = (json.loads((docs / "benchmarks" / name).read_text()) for name in (ATTENTION, SPEED))
    return settings_table(attention, speed)


def write_page(app: Sphinx) -> None:
    source = Path(app.srcdir)
    speed = json.loads((source / "benchmarks" / SPEED).read_text())
    page = source / "guide" / "generated" / "settings.md"
    page.parent.mkdir(exist_ok=True)
    text = f"{speed['device']}, commit {speed['commit'][:7]}.\n\n{committed_table(source)}"
    if not page.exists() or page.read_text() != text:
        page.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
