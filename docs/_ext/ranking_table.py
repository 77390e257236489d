"""Tables and plots of the ranking page, from the JSON that `evaluate ranking --json` wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from page_parts import inline_svg

if TYPE_CHECKING:
    from sphinx.application import Sphinx

Row = dict[str, Any]

MAIN = (10, 60)  # the paper's numbers of planes and tables
MEASURES = {
    "precision": "precision",
    "jaccard": "Jaccard",
    "ndcg": "NDCG",
    "spearman": "Spearman's ρ",
    "kendall": "Kendall's τ_b",
}
# Mid tones are legible on white and on black.
_COLOURS = {
    "hard LSH": "#8b8f98",
    "tanh τ=0.4": "#d97706",
    "tanh τ=1": "#a855f7",
    "tanh τ=3": "#ec4899",
    "tanh_scaled τ=0.4": "#3b82f6",
    "linear τ=30": "#16a34a",
}
_DASHES = {2: ":", 6: "--", 10: "-"}
_AGAINST_BITS = ("hard LSH", "tanh τ=0.4", "tanh_scaled τ=0.4")


def name_of(row: Row) -> str:
    settings = row["settings"]
    if row["method"] == "hard_lsh":
        return "hard LSH"
    return f"{settings['query_map']} τ={settings['temperature']:g}"


def shape_of(row: Row) -> tuple[int, int]:
    return row["settings"]["num_planes"], row["settings"]["num_tables"]


def middle(run: Row) -> int:
    """The place of the k that tables are about."""
    return len(run["ks"]) // 2


def measures_table(run: Row) -> str:
    """Every measure at the middle k, for the paper's P and L."""
    place, k = middle(run), run["ks"][middle(run)]
    lines = ["| scores | " + " | ".join(f"{name} at {k}" for name in MEASURES.values()) + " |"]
    lines.append("| --- |" + " --: |" * len(MEASURES))
    for row in run["rows"]:
        if shape_of(row) == MAIN:
            pairs = [(row["means"][name][place], row["standard_errors"][name][place]) for name in MEASURES]
            cells = [f"{mean:.3f}\u00a0±\u00a0{error:.3f}" for mean, error in pairs]
            lines.append(f"| {name_of(row)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n"


def shapes_table(run: Row) -> str:
    """Precision at the middle k, a row for each P and L, a column for each kind of score."""
    place = middle(run)
    names = list(dict.fromkeys(map(name_of, run["rows"])))
    lines = ["| P | L | bits | " + " | ".join(names) + " |", "| --: | --: | --: |" + " --: |" * len(names)]
    for planes, tables in dict.fromkeys(map(shape_of, run["rows"])):
        found = {name_of(row): row for row in run["rows"] if shape_of(row) == (planes, tables)}
        cells = [f"{found[name]['means']['precision'][place]:.3f}" for name in names]
        lines.append(f"| {planes} | {tables} | {planes * tables} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n"


def draw_measure(axes: Axes, run: Row, measure: str) -> None:
    """One measure against k for the paper's P and L, with a band of two standard errors."""
    for row in run["rows"]:
        if shape_of(row) == MAIN:
            mean, error, name = row["means"][measure], row["standard_errors"][measure], name_of(row)
            axes.plot(run["ks"], mean, marker="o", markersize=3, color=_COLOURS[name], label=name)
            bands = [[m + sign * 2 * e for m, e in zip(mean, error, strict=True)] for sign in (-1, 1)]
            axes.fill_between(run["ks"], *bands, color=_COLOURS[name], alpha=0.2, linewidth=0)
    _finish(axes, run["ks"], f"k, of {run['num_keys']} keys", MEASURES[measure])


def draw_bits(axes: Axes, run: Row) -> None:
    """Precision at the middle k against the bits of the index, P by the dashes."""
    place, bits = middle(run), set()
    for name in _AGAINST_BITS:
        for planes, dashes in _DASHES.items():
            rows = [row for row in run["rows"] if name_of(row) == name and shape_of(row)[0] == planes]
            sizes = [planes * shape_of(row)[1] for row in rows]
            bits |= set(sizes)
            precision = [row["means"]["precision"][place] for row in rows]
            style = {"ls": dashes, "marker": "o", "markersize": 3, "color": _COLOURS[name]}
            axes.plot(sizes, precision, **style, label=f"{name}, P={planes}")
    _finish(axes, [40, 120, 360, 1080], "index bits a key", f"precision at k = {run['ks'][place]}")


def _finish(axes: Axes, ticks: list[int], xlabel: str, ylabel: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.2)
    axes.legend(frameon=False, fontsize=8)


def fragment(run: Row) -> str:
    """The generated part of the page."""
    facts = (
        f"{run['num_keys']} keys of head_dim {run['head_dim']}, {run['num_queries']} queries for each of "
        f"{run['num_trials']} draws of keys and planes, seed {run['seed']}, commit {run['commit'][:7]}.\n\n"
    )
    plots: dict[str, Callable[[Axes, Row], None]] = {
        f"{label} of the top k against k, P={MAIN[0]}, L={MAIN[1]}": partial(draw_measure, measure=measure)
        for measure, label in (("precision", "Precision"), ("ndcg", "NDCG"), ("spearman", "Rank correlation"))
    }
    curves = "".join(f"**{title}**\n\n{inline_svg(draw, run, title)}" for title, draw in plots.items())
    bits = inline_svg(draw_bits, run, "Precision against the bits of the index")
    by_k, by_shape = f"{curves}{measures_table(run)}", f"{bits}{shapes_table(run)}"
    return f"{facts}### Against k\n\n{by_k}### Against planes and tables\n\n{by_shape}"


def write_page(app: Sphinx) -> None:
    source = Path(app.srcdir)
    text = fragment(json.loads((source / "benchmarks" / "ranking.json").read_text()))
    page = source / "guide" / "generated" / "ranking.md"
    page.parent.mkdir(exist_ok=True)
    if not page.exists() or page.read_text() != text:
        page.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
