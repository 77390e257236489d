"""Tables and plots of the decode page, from the JSON that `bench decode --json` wrote; without it, a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from page_parts import (
    DENSE,
    GREY,
    INK,
    Case,
    Row,
    best_dense,
    case_name,
    case_of,
    dense_table,
    facts,
    inline_svg,
    ratio,
    share_of_bandwidth,
    spread,
    table,
    verdict,
    write_benchmark,
)

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# (batch, query heads, KV heads, tokens): the speed over dense that has to be reached, and the one to aim at.
BARS: dict[Case, tuple[float, float]] = {
    (1, 32, 32, 131072): (3.3, 4.0),
    (1, 32, 8, 131072): (1.9, 2.5),
    (8, 32, 8, 32768): (1.9, 2.5),
    (1, 32, 8, 32768): (1.2, 1.5),
}
BUILD_BAR_US, BUILD_AIM_US = 6000.0, 2000.0
GROWTH = (1, 32, 8)

# Mid tones are legible on white and on black.
_COLOURS = {"socket": "#3b82f6", "sdpa_flash": "#d97706", "sdpa_cudnn": "#16a34a", "flashinfer": "#a855f7"}
_STAGES = {"score": "#3b82f6", "select": "#d97706", "attend": "#16a34a"}


def released(run: Row, case: Case) -> Row | None:
    """SOCKET's row of a case with P=10 and N/33 tokens kept."""
    rows = [row for row in run["rows"] if row["method"] == "socket" and case_of(row) == case]
    rows = [row for row in rows if row["kept_tokens"] == round(row["kv_len"] / 33)]
    return next((row for row in rows if row["settings"]["num_planes"] == 10), None)


def judged(run: Row) -> list[tuple[Case, Row, Row]]:
    """(case, SOCKET's row, best dense row) of the cases with a bar, as far as both were measured."""
    found = [(case, ours, best_dense(run, ours)) for case in BARS if (ours := released(run, case))]
    return [(case, ours, dense) for case, ours, dense in found if dense]


def main_table(run: Row) -> str:
    rows = []
    for case, ours, dense in judged(run):
        verdicts = [verdict(ours["ratio_to_best_dense"] >= target, f"{target}×") for target in BARS[case]]
        rival = f"{DENSE[dense['method']]} {spread(dense)}"
        rows.append([case_name(case), rival, spread(ours), f"**{ratio(ours)}**", *verdicts, share_of_bandwidth(ours)])
    return table("case | best dense, µs | SOCKET, µs | speed-up | bar | aim | of read bandwidth", rows)


def index_table(run: Row) -> str:
    rows = []
    for row in run["rows"]:
        if row["method"] == "socket_index_build":
            verdicts = [
                verdict(row["us"] <= target, f"{target / 1000:g} ms") for target in (BUILD_BAR_US, BUILD_AIM_US)
            ]
            rows.append([f"build, {row['kv_len']} tokens × {row['num_kv_heads']} KV heads", spread(row), *verdicts])
        if row["method"] == "socket_append":
            rows.append([f"append of one token × {row['num_kv_heads']} KV heads", spread(row), "-", "-"])
    return table("operation | µs | bar | aim", rows)


def variants_table(run: Row) -> str:
    rows = []
    for row in run["rows"]:
        if row["method"] == "socket" and case_of(row) == (*GROWTH, 131072):
            settings = f"P={row['settings']['num_planes']}, {row['kept_tokens']} kept"
            stages = [f"{row['stage_us'][stage]:.1f}" for stage in _STAGES]
            rows.append([settings, row["bits_per_token"], spread(row), ratio(row), *stages])
    return table("setting | bits a token | µs | speed-up | " + " | ".join(_STAGES), rows)


def _growth(run: Row, method: str) -> list[Row]:
    rows = [row for row in run["rows"] if case_of(row)[:3] == GROWTH and row["method"] == method]
    rows = [row for row in rows if row["us"] is not None and (method in DENSE or row is released(run, case_of(row)))]
    return sorted(rows, key=lambda row: row["kv_len"])


def growth_table(run: Row) -> str:
    rows = []
    for row in _growth(run, "socket"):
        dense = best_dense(run, row)
        against = [f"{dense['us']:.1f}", f"{dense['us'] / row['us']:.2f}×"] if dense else ["-", "-"]
        rows.append([row["kv_len"], f"{row['us']:.1f}", *against])
    return table("N | SOCKET, µs | best dense, µs | speed-up", rows)


def misses_table(run: Row) -> str:
    rows = []
    for row in run["rows"]:
        if row["method"] == "socket":
            settings = f"P={row['settings']['num_planes']}, {row['kept_tokens']} kept"
            share = f"{100 * row['misses']['steps']:.0f} %"
            times = [f"{us:.1f}" for us in (row["us"], row["us_mean"], row["us_longest"], row["misses"]["us"])]
            rows.append([_input_name(row), settings, share, *times])
    return table("case | setting | steps with a miss | median, µs | mean | longest | all heads miss", rows)


def captured_table(run: Row) -> str:
    rows = []
    for row in run["rows"]:
        if row["method"] == "socket" and "input" in row["settings"] and (dense := best_dense(run, row)):
            by_mean = f"{dense['us_mean'] / row['us_mean']:.2f}×"
            rows.append([_input_name(row), spread(dense), spread(row), ratio(row), by_mean])
    return table("case | best dense, µs | SOCKET, µs | speed-up | of the means", rows)


def _input_name(row: Row) -> str:
    source = row["settings"].get("input")
    return case_name(case_of(row)) + (f", {source}" if source else "")


def draw_growth(axes: Axes, run: Row) -> None:
    """Time against N, both logarithmic."""
    lengths = [row["kv_len"] for row in _growth(run, "socket")]
    for method in ("socket", *DENSE):
        if rows := _growth(run, method):
            style = {"marker": "o", "markersize": 4, "color": _COLOURS[method]}
            points = [row["kv_len"] for row in rows], [row["us"] for row in rows]
            axes.loglog(*points, **style, label=DENSE.get(method, "SOCKET, P=10, N/33 kept"))
    axes.set_xticks(lengths, [f"{kv_len // 1024}K" for kv_len in lengths])
    axes.minorticks_off()
    axes.set_xlabel("tokens N (32/8 heads, batch 1)")
    axes.set_ylabel("µs a step")
    axes.grid(alpha=0.2, color=INK)
    axes.legend(frameon=False)


def draw_stages(axes: Axes, run: Row) -> None:
    """For each main case the stages of a step, stacked, under the best dense kernel's time."""
    ticks = []
    for place, (case, ours, dense) in enumerate(judged(run)):
        axes.barh(place - 0.19, dense["us"], 0.34, color=GREY, label="best dense" if place == 0 else None)
        left = 0.0
        for stage, colour in _STAGES.items():
            us = ours["stage_us"][stage]
            axes.barh(place + 0.19, us, 0.34, left=left, color=colour, label=stage if place == 0 else None)
            left += us
        axes.annotate(f" {ratio(ours)}", (left, place + 0.19), va="center")
        ticks.append(case_name(case).replace(", N=", "\nN="))
    axes.set_yticks(range(len(ticks)), ticks)
    axes.invert_yaxis()
    axes.set_xlabel("µs a step")
    axes.grid(axis="x", alpha=0.2, color=INK)
    axes.set_axisbelow(True)
    axes.legend(frameon=False)


def fragment(run: Row) -> str:
    """The generated part of the page."""
    stages = growth = ""
    if judged(run):
        stages = inline_svg(draw_stages, run, "Time of a decode step by stage, and of the best dense kernel")
    if _growth(run, "socket"):
        growth = inline_svg(draw_growth, run, "Time of a decode step against the number of tokens")
    return (
        f"{facts(run)}{main_table(run)}### Where the time goes\n\n{stages}### Growth\n\n{growth}{growth_table(run)}"
        f"### Bits and budgets\n\n32/8 heads, batch 1, N=131072; stages in µs.\n\n{variants_table(run)}"
        f"### Misses\n\n{misses_table(run)}### Captured inputs\n\n{captured_table(run)}"
        f"### Index\n\n{index_table(run)}### Dense kernels\n\n{dense_table(run)}"
    )


def write_page(app: Sphinx) -> None:
    write_benchmark(app, "decode", fragment)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
