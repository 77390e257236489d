"""Parts of pages that are made from results: tables, plots in the colours of the page, the file itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from sphinx.application import Sphinx

Row = dict[str, Any]
Case = tuple[int, int, int, int]

DENSE = {"sdpa_flash": "SDPA flash", "sdpa_cudnn": "SDPA cuDNN", "flashinfer": "FlashInfer"}

# Mid tones are legible on white and on black; what has this ink takes the page's own text colour.
INK = "#010203"
GREY = "#8b8f98"


def case_of(row: Row) -> Case:
    return row["batch"], row["num_qo_heads"], row["num_kv_heads"], row["kv_len"]


def case_name(case: Case) -> str:
    batch, num_qo_heads, num_kv_heads, kv_len = case
    return f"{num_qo_heads}/{num_kv_heads} heads, batch {batch}, N={kv_len}"


def best_dense(run: Row, row: Row) -> Row | None:
    """The fastest dense row that ran on the shape and inputs of `row`."""

    def place(other: Row) -> tuple[Any, ...]:
        return *case_of(other), other["head_dim"], other["settings"].get("input")

    rows = [r for r in run["rows"] if r["method"] in DENSE and place(r) == place(row) and r["us"] is not None]
    return min(rows, key=lambda r: r["us"], default=None)


def table(heading: str, rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table: columns after the first are right-aligned; nothing where there are no rows."""
    lines = ["| " + " | ".join(map(str, cells)) + " |" for cells in rows]
    marks = "| --- |" + " --: |" * heading.count("|")
    return "\n".join([f"| {heading} |", marks, *lines]) + "\n\n" if lines else "Not measured in this run.\n\n"


def verdict(reached: bool, target: str) -> str:
    return f"{target} {'met' if reached else '**missed**'}"


def spread(row: Row) -> str:
    """Median and quartiles, in microseconds."""
    low, high = row["us_quartiles"]
    return f"{row['us']:.1f} ({low:.1f}-{high:.1f})"


def ratio(row: Row) -> str:
    return "-" if row["ratio_to_best_dense"] is None else f"{row['ratio_to_best_dense']:.2f}×"


def share_of_bandwidth(row: Row) -> str:
    return f"{100 * row['fraction_of_read_bandwidth']:.0f} %"


def dense_table(run: Row) -> str:
    rows = []
    for row in run["rows"]:
        if row["method"] in DENSE and "input" not in row["settings"]:
            time = "-" if row["us"] is None else spread(row)
            call = row["note"] if row["us"] is None else row["settings"]["call"]
            rows.append([case_name(case_of(row)), DENSE[row["method"]], time, str(call).replace("|", "/")])
    return table("case | kernel | µs | fastest call, or why there is none", rows)


def facts(run: Row) -> str:
    """What the run was made on."""
    return (
        f"{run['device']}, driver {run['driver']}, CUDA runtime {run['versions'].get('cuda_runtime', '-')}, torch "
        f"{run['versions'].get('torch', '-')}, commit {run['commit'][:7]}. Measured on this device: "
        f"{run['read_bandwidth_tb_s']:.2f} TB/s read, {run['copy_bandwidth_tb_s']:.2f} TB/s copied.\n\n"
    )


def inline_svg(draw: Callable[[Axes, Row], None], run: Row, title: str) -> str:
    """A plot as raw HTML; text and lines take the colour of the page's text."""
    inked = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    with matplotlib.rc_context(inked | {"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif"}):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        draw(figure.add_subplot(), run)
        for spine in ("top", "right"):
            figure.axes[0].spines[spine].set_visible(False)
        text = StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").strip()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", re.sub(r'<g id="[^"]*"', "<g", svg), flags=re.DOTALL)
    opening = f'<svg role="img" aria-label="{title}" style="max-width: 100%; height: auto" '
    return "```{raw} html\n" + svg.replace("<svg ", opening, 1) + "\n```\n\n"


def write_benchmark(app: Sphinx, name: str, fragment: Callable[[Row], str]) -> None:
    """The generated part of a benchmark's page, from its JSON if a run is committed."""
    folder = Path(app.srcdir) / "benchmarks"
    source, page = folder / f"{name}-h100.json", folder / "generated" / f"{name}.md"
    text = fragment(json.loads(source.read_text())) if source.exists() else "No run is committed yet.\n"
    page.parent.mkdir(exist_ok=True)
    if not page.exists() or page.read_text() != text:
        page.write_text(text)
