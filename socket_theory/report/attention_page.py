"""The report of `socket-theory evaluate attention`: errors against density and bits, the table, the provenance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from socket_theory.evaluate.contenders import short_settings
from socket_theory.report.chart import Curve, draw
from socket_theory.report.page import render
from socket_theory.report.reading import percent, reading
from socket_theory.report.sampled_section import sampled_section

NAMES = {
    "oracle_top_k": "oracle, the true top tokens",
    "window": "window, the latest tokens",
    "hard_lsh": "hard LSH",
    "socket_released": "SOCKET as released",
    "socket_best": "SOCKET, best setting",
}
Row = dict[str, Any]


def attention_report(record: dict[str, Any], *, command: str) -> str:
    """The HTML page of a record as `--json` writes it, with `by_density` and `by_bits`.

    `command` is what to type for the same numbers. Equal arguments give equal text.
    """
    by_density, by_bits = (_by_method(record[name]) for name in ("by_density", "by_bits"))
    marked = any(row.get("forced_only") for name in ("rows", "by_density", "by_bits") for row in record[name])
    density = [
        Curve(name, _points([row for row in rows if not row.get("forced_only")], "density"))
        for name, rows in by_density.items()
    ]
    bits = [Curve(name, _points(rows, "nominal_bits")) for name, rows in by_bits.items()]
    span = [row["nominal_bits"] for row in record["by_bits"]]
    references = [
        Curve(row["method"], [(x, row["relative_error_mean"], None) for x in (min(span), max(span))], marked=False)
        for row in record["rows"]
        if row["method"] in ("oracle_top_k", "window")
    ]
    largest = max(row["relative_error_mean"] for row in record["rows"])
    given = record | {"by_density": by_density, "by_bits": by_bits} | sampled_section(record)
    return render(
        "attention.html",
        **given,
        largest=largest,
        marked=marked,
        without_choice="Nothing to plot: the budget leaves scores no choice." if marked else "",
        density_chart=draw(density),
        bits_chart=None if _forced(record["by_bits"]) else draw([*references, *bits]),
        best=short_settings(record["by_bits"][-1]["settings"]),
        kept=next(row["density"] for row in record["rows"] if row["method"] == "oracle_top_k"),
        sentences=reading(record),
        names=NAMES,
        series=list(NAMES),
        percent=percent,
        short_settings=short_settings,
        command=command,
    )


def _by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["method"], []).append(row)
    return found


def _forced(rows: Sequence[Row]) -> bool:
    """Whether scores decide nowhere in these rows."""
    return all(row.get("forced_only") == 1 for row in rows)


def _points(rows: Sequence[Row], x: str) -> list[tuple[float, float, float | None]]:
    return [(row[x], row["relative_error_mean"], row["standard_error"]) for row in rows]
