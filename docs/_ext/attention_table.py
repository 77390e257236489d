"""Tables and plot of the real-attention page, from the JSON that `evaluate attention --json` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from page_parts import inline_svg

from socket_theory.evaluate.contenders import short_settings
from socket_theory.report.sampled_section import PAPER_SLOPES, slope

if TYPE_CHECKING:
    from sphinx.application import Sphinx

Row = dict[str, Any]

# Mid tones are legible on white and on black.
_COLOURS = {"iid": "#8b8f98", "stratified": "#d97706", "systematic": "#3b82f6"}
_MARKERS = {"iid": "o", "stratified": "s", "systematic": "D"}


def selections_table(run: Row) -> str:
    """Every method that keeps a share of the tokens, or all of them."""
    headings = ("bits", "density", "captured mass", "recall", "relative error", "s.e.", "p90")
    figures = ("density", "captured_mass", "recall", "relative_error_mean", "standard_error", "relative_error_p90")
    rows = run["rows"]
    table = _table(headings, [(row, [str(row["nominal_bits"]), *_decimals(row, figures)]) for row in rows])
    marked = [row["method"] for row in rows if row.get("forced_only")]
    note = "Where sink and window fill the budget, no score decides, and these methods keep the same tokens: "
    return table + (f"{note}{', '.join(dict.fromkeys(marked))}.\n\n" if marked else "")


def samplers_table(run: Row) -> str:
    """Every method that samples values or scores."""
    headings = ("rows", "of KV", "keys", "bytes", "bias", "relative error", "s.e.", "p90")
    counts = ("rows_per_head", "rows_per_kv_head")
    figures = (
        "key_share",
        "bytes_share",
        "relative_bias",
        "relative_error_mean",
        "standard_error",
        "relative_error_p90",
    )
    rows = run["sampled_rows"]
    return _table(
        headings, [(row, [*(f"{row[name]:.0f}" for name in counts), *_decimals(row, figures)]) for row in rows]
    )


def slopes_table(run: Row) -> str:
    """How the exact variance falls, beside what the paper reports."""
    lines = ["| draws | mean of heads | 8 of 10 heads | pooled | paper |", "| --- | --: | --: | --: | --: |"]
    for curve in run["variance_curves"]:
        error = f"{slope(curve['slope'])}\u00a0±\u00a0{curve['slope_standard_error']:.3f}"
        span = f"{slope(curve['slope_p10'])} to {slope(curve['slope_p90'])}"
        pooled, paper = slope(curve["slope_of_mean"]), slope(PAPER_SLOPES[curve["sampler"]])
        lines.append(f"| {curve['sampler']} | {error} | {span} | {pooled} | {paper} |")
    return "\n".join(lines) + "\n\n"


def draw_variance(axes: Axes, run: Row) -> None:
    """The geometric mean of the heads' variances against the number of draws."""
    for curve in run["variance_curves"]:
        name, draws = curve["sampler"], curve["num_samples"]
        style = {"marker": _MARKERS[name], "markersize": 4, "color": _COLOURS[name]}
        axes.loglog(draws, curve["relative_variance"], **style, label=f"{name}, slope {slope(curve['slope'])}")
    axes.set_xticks(draws, [str(count) for count in draws])
    axes.minorticks_off()
    axes.set_xlabel("draws a head")
    axes.set_ylabel("variance over |o|²")
    axes.grid(alpha=0.2)
    axes.legend(frameon=False)


def fragments(run: Row) -> dict[str, str]:
    """The generated parts of the page by name."""
    facts = (
        f"{run['model']}, {run['context']} tokens, {len(run['layers'])} layers, {len(run['positions'])} positions, "
        f"sink {run['sink']}, window {run['window']}, seed {run['seed']}, commit {run['commit'][:7]}.\n\n"
    )
    title = "Variance of the sampled value against the number of draws"
    return {
        "attention": facts + selections_table(run),
        "sampled": samplers_table(run),
        "variance": inline_svg(draw_variance, run, title) + slopes_table(run),
    }


def _table(headings: tuple[str, ...], rows: list[tuple[Row, list[str]]]) -> str:
    lines = ["| method | settings | " + " | ".join(headings) + " |", "| --- | --- |" + " --: |" * len(headings)]
    for row, cells in rows:
        # A bar would end the cell.
        settings = short_settings(row["settings"]).replace("|v|", "‖v‖")
        lines.append(f"| {row['method']} | {settings} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n"


def _decimals(row: Row, names: tuple[str, ...]) -> list[str]:
    return ["–" if row[name] is None else f"{row[name]:.3f}" for name in names]


def write_tables(app: Sphinx) -> None:
    source = Path(app.srcdir)
    run = json.loads((source / "benchmarks" / "attention-smollm2.json").read_text())
    folder = source / "guide" / "generated"
    folder.mkdir(exist_ok=True)
    for name, text in fragments(run).items():
        page = folder / f"{name}.md"
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_tables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
