"""Tables and plot of the SANTA page, from the JSON that `bench santa --json` wrote; without it, a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
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

# (batch, query heads, KV heads, tokens): the speed over dense that has to be reached, at every S measured there.
BARS: dict[Case, float] = {(1, 32, 8, 131072): 1.6, (8, 32, 8, 32768): 1.5, (1, 32, 8, 32768): 1.3}

# Mid tones are legible on white and on black.
_STAGES = {"score": "#3b82f6", "draw": "#16a34a"}


def random_rows(run: Row, case: Case) -> list[Row]:
    """SANTA's rows of a case with a bar, on random inputs."""
    rows = [row for row in run["rows"] if row["method"] == "santa" and "input" not in row["settings"]]
    return [row for row in rows if case_of(row) == case and row["head_dim"] == 128]


def judged(run: Row) -> list[tuple[Case, Row, Row]]:
    """(case, SANTA's row, best dense row) of the default sampler, as far as both were measured."""
    rows = [(case, row, best_dense(run, row)) for case in BARS for row in random_rows(run, case)]
    return [(case, row, dense) for case, row, dense in rows if dense and row["settings"]["sampler"] == "phase_carried"]


def main_table(run: Row) -> str:
    rows = []
    for case, ours, dense in judged(run):
        rival, samples = f"{DENSE[dense['method']]} {spread(dense)}", ours["settings"]["num_samples"]
        bar = verdict(ours["ratio_to_best_dense"] >= BARS[case], f"{BARS[case]}×")
        figures = [spread(ours), f"**{ratio(ours)}**", bar, share_of_bandwidth(ours)]
        rows.append([case_name(case), samples, rival, *figures])
    return table("case | S | best dense, µs | SANTA, µs | speed-up | bar | of read bandwidth", rows)


def samplers_table(run: Row) -> str:
    rows = []
    for case in BARS:
        for row in random_rows(run, case):
            sampler = f"{row['settings']['sampler'].replace('_', ' ')}, S={row['settings']['num_samples']}"
            stages = [f"{row['stage_us'][stage]:.1f}" for stage in _STAGES]
            read = f"{row['bytes'] / 1e6:.1f}"
            rows.append([case_name(case), sampler, f"{row['us']:.1f}", ratio(row), *stages, row["kept_tokens"], read])
    return table("case | draws | µs | speed-up | score, µs | draw, µs | rows a head | MB", rows)


def captured_table(run: Row) -> str:
    """The least, the middle and the largest figure over the layers of a capture, above random inputs of that shape."""
    rows = []
    measured = [(row, best_dense(run, row)) for row in run["rows"] if row["method"] == "santa" and _is_default(row)]
    pairs = [(row, dense) for row, dense in measured if dense]
    for shape in dict.fromkeys(_shape(row) for row, _ in pairs if "input" in row["settings"]):
        here = [pair for pair in pairs if _shape(pair[0]) == shape]
        layers = [pair for pair in here if "input" in pair[0]["settings"]]
        random = [pair for pair in here if "input" not in pair[0]["settings"]]
        repeated = " repeated" if "repeated" in layers[0][0]["settings"]["input"] else ""
        name = f"{case_name(case_of(layers[0][0]))}, head_dim {layers[0][0]['head_dim']}"
        rows.append([f"{len(layers)} layers{repeated}: {name}", *_figures(layers)])
        rows += [[f"random: {name}", *_figures(random)]] if random else []
    return table("inputs | best dense, µs | SANTA, µs | speed-up | rows a head", rows)


def _is_default(row: Row) -> bool:
    return (row["settings"]["sampler"], row["settings"]["num_samples"]) == ("phase_carried", 128)


def _shape(row: Row) -> tuple[int, ...]:
    return *case_of(row), row["head_dim"]


def _figures(pairs: Sequence[tuple[Row, Row]]) -> list[str]:
    figures: list[tuple[Callable[[Row, Row], float], str]] = [
        (lambda _, dense: float(dense["us"]), "{:.1f}"),
        (lambda ours, _: float(ours["us"]), "{:.1f}"),
        (lambda ours, _: float(ours["ratio_to_best_dense"]), "{:.2f}×"),
        (lambda ours, _: float(ours["kept_tokens"]), "{:.0f}"),
    ]
    return [_range([value(*pair) for pair in pairs], form) for value, form in figures]


def _range(values: Sequence[float], form: str) -> str:
    least, most = min(values), max(values)
    spelled = [form.format(value) for value in (least, median(values), most)]
    return " / ".join(spelled) if len(values) > 1 else spelled[0]


def draw_stages(axes: Axes, run: Row) -> None:
    """For each case the best dense kernel's time, and below it the stages of a step for every S."""
    ticks: list[str] = []
    places: list[float] = []
    named: set[str] = set()

    def bar(left: float, us: float, colour: str, label: str) -> None:
        axes.barh(places[-1], us, 0.8, left=left, color=colour, label=None if label in named else label)
        named.add(label)

    last: Case | None = None
    for case, ours, dense in judged(run):
        if case != last:
            places.append(places[-1] + 1.6 if places else 0.0)
            ticks.append(case_name(case).replace(", N=", "\nN="))
            bar(0.0, dense["us"], GREY, "best dense")
            last = case
        places.append(places[-1] + 1.0)
        ticks.append(f"S={ours['settings']['num_samples']}")
        left = 0.0
        for stage, colour in _STAGES.items():
            bar(left, ours["stage_us"][stage], colour, stage)
            left += ours["stage_us"][stage]
        axes.annotate(f" {ratio(ours)}", (left, places[-1]), va="center")
    axes.set_yticks(places, ticks)
    axes.invert_yaxis()
    axes.set_xlabel("µs a step")
    axes.grid(axis="x", alpha=0.2, color=INK)
    axes.set_axisbelow(True)
    axes.legend(frameon=False)


def fragment(run: Row) -> str:
    """The generated part of the page."""
    title = "Time of a SANTA step by stage for every S, and of the best dense kernel"
    stages = inline_svg(draw_stages, run, title) if judged(run) else ""
    return (
        f"{facts(run)}{main_table(run)}### Where the time goes\n\n{stages}{samplers_table(run)}"
        f"### Real queries, keys and values\n\n{captured_table(run)}### Dense kernels\n\n{dense_table(run)}"
    )


def write_page(app: Sphinx) -> None:
    write_benchmark(app, "santa", fragment)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
