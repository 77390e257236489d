"""Tables and plots of the decode page, from the JSON that `bench decode --json` wrote; without it, a sentence."""

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

# (batch, query heads, KV heads, tokens): the speed over dense that has to be reached, and the one to aim at.
BARS: dict[Case, tuple[float, float]] = {
    (1, 32, 32, 131072): (3.3, 4.0),
    (1, 32, 8, 131072): (1.9, 2.5),
    (8, 32, 8, 32768): (1.9, 2.5),
    (1, 32, 8, 32768): (1.2, 1.5),
}
BUILD_BAR_US, BUILD_AIM_US = 6000.0, 2000.0
GROWTH = (1, 32, 8)
DENSE = {"sdpa_flash": "SDPA flash", "sdpa_cudnn": "SDPA cuDNN", "flashinfer": "FlashInfer"}

# Mid tones are legible on white and on black; what has this ink takes the page's own text colour.
_INK = "#010203"
_COLOURS = {"socket": "#3b82f6", "sdpa_flash": "#d97706", "sdpa_cudnn": "#16a34a", "flashinfer": "#a855f7"}
_STAGES = {"score": "#3b82f6", "select": "#d97706", "attend": "#16a34a"}
_GREY = "#8b8f98"


def case_of(row: Row) -> Case:
    return row["batch"], row["num_qo_heads"], row["num_kv_heads"], row["kv_len"]


def best_dense(run: Row, case: Case) -> Row | None:
    """The fastest dense row of a case that ran."""
    rows = [row for row in run["rows"] if row["method"] in DENSE and case_of(row) == case and row["us"] is not None]
    return min(rows, key=lambda row: row["us"], default=None)


def released(run: Row, case: Case) -> Row | None:
    """SOCKET's row of a case with P=10 and N/33 tokens kept."""
    rows = [row for row in run["rows"] if row["method"] == "socket" and case_of(row) == case]
    rows = [row for row in rows if row["kept_tokens"] == round(row["kv_len"] / 33)]
    return next((row for row in rows if row["settings"]["num_planes"] == 10), None)


def judged(run: Row) -> list[tuple[Case, Row, Row]]:
    """(case, SOCKET's row, best dense row) of the cases with a bar, as far as both were measured."""
    pairs = [(case, released(run, case), best_dense(run, case)) for case in BARS]
    return [(case, ours, dense) for case, ours, dense in pairs if ours and dense]


def _table(heading: str, rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table: columns after the first are right-aligned; nothing where there are no rows."""
    lines = ["| " + " | ".join(map(str, cells)) + " |" for cells in rows]
    marks = "| --- |" + " --: |" * heading.count("|")
    return "\n".join([f"| {heading} |", marks, *lines]) + "\n\n" if lines else "Not measured in this run.\n\n"


def _name(case: Case) -> str:
    batch, num_qo_heads, num_kv_heads, kv_len = case
    return f"{num_qo_heads}/{num_kv_heads} heads, batch {batch}, N={kv_len}"


def _verdict(reached: bool, target: str) -> str:
    return f"{target} {'met' if reached else '**missed**'}"


def _spread(row: Row) -> str:
    low, high = row["us_quartiles"]
    return f"{row['us']:.1f} ({low:.1f}-{high:.1f})"


def _ratio(row: Row) -> str:
    return "-" if row["ratio_to_best_dense"] is None else f"{row['ratio_to_best_dense']:.2f}×"


def main_table(run: Row) -> str:
    rows = []
    for case, ours, dense in judged(run):
        verdicts = [_verdict(ours["ratio_to_best_dense"] >= target, f"{target}×") for target in BARS[case]]
        rival = f"{DENSE[dense['method']]} {_spread(dense)}"
        share = f"{100 * ours['fraction_of_read_bandwidth']:.0f} %"
        rows.append([_name(case), rival, _spread(ours), f"**{_ratio(ours)}**", *verdicts, share])
    return _table("case | best dense, µs | SOCKET, µs | speed-up | bar | aim | of read bandwidth", rows)


def index_table(run: Row) -> str:
    rows = []
    for row in run["rows"]:
        if row["method"] == "socket_index_build":
            verdicts = [
                _verdict(row["us"] <= target, f"{target / 1000:g} ms") for target in (BUILD_BAR_US, BUILD_AIM_US)
            ]
            rows.append([f"build, {row['kv_len']} tokens × {row['num_kv_heads']} KV heads", _spread(row), *verdicts])
        if row["method"] == "socket_append":
            rows.append([f"append of one token × {row['num_kv_heads']} KV heads", _spread(row), "-", "-"])
    return _table("operation | µs | bar | aim", rows)


def variants_table(run: Row) -> str:
    rows = []
    for row in run["rows"]:
        if row["method"] == "socket" and case_of(row) == (*GROWTH, 131072):
            settings = f"P={row['settings']['num_planes']}, {row['kept_tokens']} kept"
            stages = [f"{row['stage_us'][stage]:.1f}" for stage in _STAGES]
            rows.append([settings, row["bits_per_token"], _spread(row), _ratio(row), *stages])
    return _table("setting | bits a token | µs | speed-up | " + " | ".join(_STAGES), rows)


def dense_table(run: Row) -> str:
    rows = []
    for row in run["rows"]:
        if row["method"] in DENSE:
            time = "-" if row["us"] is None else _spread(row)
            call = row["note"] if row["us"] is None else row["settings"]["call"]
            rows.append([_name(case_of(row)), DENSE[row["method"]], time, str(call).replace("|", "/")])
    return _table("case | kernel | µs | fastest call, or why there is none", rows)


def _growth(run: Row, method: str) -> list[tuple[int, float]]:
    rows = [row for row in run["rows"] if case_of(row)[:3] == GROWTH and row["method"] == method]
    rows = [row for row in rows if row["us"] is not None and (method in DENSE or row is released(run, case_of(row)))]
    return sorted((row["kv_len"], row["us"]) for row in rows)


def growth_table(run: Row) -> str:
    rows = []
    for kv_len, us in _growth(run, "socket"):
        dense = best_dense(run, (*GROWTH, kv_len))
        against = [f"{dense['us']:.1f}", f"{dense['us'] / us:.2f}×"] if dense else ["-", "-"]
        rows.append([kv_len, f"{us:.1f}", *against])
    return _table("N | SOCKET, µs | best dense, µs | speed-up", rows)


def misses_table(run: Row) -> str:
    rows = []
    for row in run["rows"]:
        if row["method"] == "socket":
            settings = f"P={row['settings']['num_planes']}, {row['kept_tokens']} kept"
            share = f"{100 * row['misses']['steps']:.0f} %"
            times = [f"{us:.1f}" for us in (row["us"], row["us_longest"], row["misses"]["us"])]
            rows.append([_name(case_of(row)), settings, share, *times])
    return _table("case | setting | steps with a miss | median, µs | longest, µs | all heads miss, µs", rows)


def draw_growth(axes: Axes, run: Row) -> None:
    """Time against N, both logarithmic."""
    lengths = [kv_len for kv_len, _ in _growth(run, "socket")]
    for method in ("socket", *DENSE):
        if points := _growth(run, method):
            label = DENSE.get(method, "SOCKET, P=10, N/33 kept")
            axes.loglog(*zip(*points, strict=True), marker="o", markersize=4, color=_COLOURS[method], label=label)
    axes.set_xticks(lengths, [f"{kv_len // 1024}K" for kv_len in lengths])
    axes.minorticks_off()
    axes.set_xlabel("tokens N (32/8 heads, batch 1)")
    axes.set_ylabel("µs a step")
    axes.grid(alpha=0.2, color=_INK)
    axes.legend(frameon=False)


def draw_stages(axes: Axes, run: Row) -> None:
    """For each main case the stages of a step, stacked, under the best dense kernel's time."""
    ticks = []
    for place, (case, ours, dense) in enumerate(judged(run)):
        axes.barh(place - 0.19, dense["us"], 0.34, color=_GREY, label="best dense" if place == 0 else None)
        left = 0.0
        for stage, colour in _STAGES.items():
            us = ours["stage_us"][stage]
            axes.barh(place + 0.19, us, 0.34, left=left, color=colour, label=stage if place == 0 else None)
            left += us
        axes.annotate(f" {_ratio(ours)}", (left, place + 0.19), va="center")
        ticks.append(_name(case).replace(", N=", "\nN="))
    axes.set_yticks(range(len(ticks)), ticks)
    axes.invert_yaxis()
    axes.set_xlabel("µs a step")
    axes.grid(axis="x", alpha=0.2, color=_INK)
    axes.set_axisbelow(True)
    axes.legend(frameon=False)


def inline_svg(draw: Callable[[Axes, Row], None], run: Row, title: str) -> str:
    """A plot as raw HTML; text and lines take the colour of the page's text."""
    inked = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK)
    with matplotlib.rc_context(inked | {"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif"}):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        draw(figure.add_subplot(), run)
        for spine in ("top", "right"):
            figure.axes[0].spines[spine].set_visible(False)
        text = StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor").strip()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", re.sub(r'<g id="[^"]*"', "<g", svg), flags=re.DOTALL)
    opening = f'<svg role="img" aria-label="{title}" style="max-width: 100%; height: auto" '
    return "```{raw} html\n" + svg.replace("<svg ", opening, 1) + "\n```\n\n"


def fragment(run: Row) -> str:
    """The generated part of the page."""
    facts = (
        f"{run['device']}, driver {run['driver']}, CUDA runtime {run['versions'].get('cuda_runtime', '-')}, torch "
        f"{run['versions'].get('torch', '-')}, commit {run['commit'][:7]}. Measured on this device: "
        f"{run['read_bandwidth_tb_s']:.2f} TB/s read, {run['copy_bandwidth_tb_s']:.2f} TB/s copied.\n\n"
    )
    stages = growth = ""
    if judged(run):
        stages = inline_svg(draw_stages, run, "Time of a decode step by stage, and of the best dense kernel")
    if _growth(run, "socket"):
        growth = inline_svg(draw_growth, run, "Time of a decode step against the number of tokens")
    return (
        f"{facts}{main_table(run)}### Where the time goes\n\n{stages}### Growth\n\n{growth}{growth_table(run)}"
        f"### Bits and budgets\n\n32/8 heads, batch 1, N=131072; stages in µs.\n\n{variants_table(run)}"
        f"### Misses\n\n{misses_table(run)}"
        f"### Index\n\n{index_table(run)}### Dense kernels\n\n{dense_table(run)}"
    )


def write_page(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "benchmarks"
    source, page = folder / "decode-h100.json", folder / "generated" / "decode.md"
    text = fragment(json.loads(source.read_text())) if source.exists() else "No run is committed yet.\n"
    page.parent.mkdir(exist_ok=True)
    if not page.exists() or page.read_text() != text:
        page.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
