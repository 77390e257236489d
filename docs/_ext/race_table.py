"""Tables and plots of the page on RACE's speed, from the JSON of `bench race --json`; without it, a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from page_parts import INK, Row, facts, inline_svg, table, verdict

from socket_gpu.race.cases import GOAL, series

if TYPE_CHECKING:
    from sphinx.application import Sphinx

RACE = "race-h200.json"
NAMES = {
    "race": "RACE, our kernels",
    "race_torch": "RACE, torch passes",
    "linear_race": "chunk_linear_attn with RACE's features",
    "linear": "chunk_linear_attn alone",
    "sdpa_flash": "SDPA flash",
    "sdpa_cudnn": "SDPA cuDNN",
    "race_cpu": "RACE, torch on the CPU",
}
# Mid tones are legible on white and on black.
_COLOURS = dict(zip(NAMES, ("#dc2626", "#f59e0b", "#16a34a", "#84cc16", "#3b82f6", "#06b6d4", "#a855f7"), strict=True))
MILLION = 2**20
# What is asked of an H100 80 GB for 4 heads of head_dim 128 in bfloat16, forward and backward, in milliseconds.
BARS = {(True, 4 * MILLION): (80.0, 45.0), (False, 4 * MILLION): (45.0, 32.0)}
LEAST_TOKENS = 8 * MILLION


def ours(run: Row, **settings: object) -> list[Row]:
    """Rows of our kernels with four heads whose settings are these, from few tokens to many."""
    rows = [row for row in run["rows"] if row["method"] == "race" and settings.items() <= row["settings"].items()]
    rows = [row for row in rows if row["num_qo_heads"] == row["num_kv_heads"] and row["us"] is not None]
    return sorted(rows, key=lambda row: row["kv_len"])


def tokens_name(tokens: int) -> str:
    return f"{tokens / MILLION:g}M" if tokens >= MILLION else f"{tokens // 1024}K"


def ms(row: Row) -> str:
    """Median and quartiles in milliseconds."""
    low, high = row["us_quartiles"]
    return f"{row['us'] / 1e3:.2f} ({low / 1e3:.2f}-{high / 1e3:.2f})"


def gib(row: Row) -> str:
    return "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**30:.2f}"


def share(row: Row) -> str:
    return "-" if row["share_of_floor"] is None else f"{100 * row['share_of_floor']:.0f} %"


def bars_table(run: Row) -> str:
    rows = []
    for (causal, tokens), (bar, aim) in BARS.items():
        for row in ours(run, causal=causal, backward=True, dtype="bfloat16"):
            if row["kv_len"] == tokens:
                took = row["us"] / 1e3
                reached = [verdict(took <= bar, f"{bar:g} ms"), verdict(took <= aim, f"{aim:g} ms")]
                rows.append([f"{tokens_name(tokens)} tokens, {_form(causal)}", f"{took:.1f} ms", *reached])
    alone = _at(run, "linear", MILLION)
    mine = [row for row in ours(run, causal=True, backward=True, dtype="bfloat16") if row["kv_len"] == MILLION]
    if alone and mine:
        took, theirs = mine[0]["us"], alone["us"]
        bar = verdict(took < theirs, f"chunk_linear_attn alone, {theirs / 1e3:.1f} ms,")
        rows.append(["1M tokens, causal", f"{took / 1e3:.1f} ms", bar, "-"])
    largest = ours(run, causal=True, backward=True, dtype="bfloat16")[-1:]
    for row in largest:
        tokens = row["kv_len"]
        reached = [verdict(tokens >= LEAST_TOKENS, "8M"), verdict(tokens >= GOAL, "9M")]
        rows.append(["most tokens in one pass, causal", f"{tokens_name(tokens)}, {gib(row)} GiB", *reached])
    return table("forward and backward, bfloat16 | measured | asked of an H100 | aim", rows)


def growth_table(run: Row) -> str:
    rows = []
    for causal in (True, False):
        forward = {row["kv_len"]: row for row in ours(run, causal=causal, backward=False, dtype="bfloat16")}
        for row in ours(run, causal=causal, backward=True, dtype="bfloat16"):
            first = forward.get(row["kv_len"])
            figures = [ms(first), share(first)] if first else ["-", "-"]
            floor = f"{row['floor_us'] / 1e3:.2f}"
            name = f"{tokens_name(row['kv_len'])}, {_form(causal)}"
            rows.append([name, *figures, ms(row), floor, share(row), gib(row), row["runs"]])
    columns = "tokens | forward, ms | of its floor | forward + backward, ms | floor, ms | of its floor"
    return table(f"{columns} | peak, GiB | runs", rows)


def stages_table(run: Row) -> str:
    """The passes at the largest size that was measured by stages."""
    rows = []
    for causal in (True, False):
        measured = [row for row in ours(run, causal=causal, backward=True, dtype="bfloat16") if row["stage_us"]]
        for row in measured[-1:]:
            name = f"{tokens_name(row['kv_len'])}, {_form(causal)}"
            for stage, us in row["stage_us"].items():
                floor = row["stage_floor_us"].get(stage)
                figures = ["-", "-"] if floor is None else [f"{floor / 1e3:.2f}", f"{100 * floor / us:.0f} %"]
                rows.append([name, f"`{stage}`", f"{us / 1e3:.2f}", *figures])
    return table("tokens | pass | ms | floor, ms | of its floor", rows)


def variants_table(run: Row) -> str:
    rows = []
    for row in run["rows"]:
        grouped = row["num_qo_heads"] != row["num_kv_heads"]
        if row["method"] == "race" and row["us"] and (grouped or row["settings"]["dtype"] != "bfloat16"):
            name = f"{row['settings']['dtype']}, {row['num_qo_heads']}/{row['num_kv_heads']} heads, {_settings(row)}"
            rows.append([name, tokens_name(row["kv_len"]), ms(row), share(row), gib(row)])
    return table("case | tokens | ms | of its floor | peak, GiB", rows)


def peers_table(run: Row) -> str:
    rows = []
    for row in run["rows"]:
        if row["method"] in NAMES and row["method"] not in ("race", "race_cpu"):
            mine = [r for r in ours(run, **_alike(row)) if r["kv_len"] == row["kv_len"]]
            against = f"{row['us'] / mine[0]['us']:.2f}×" if mine and row["us"] else "-"
            time = ms(row) if row["us"] else str(row["note"]).replace("|", "/")
            passes = "forward + backward" if row["settings"]["backward"] else "forward"
            rows.append([NAMES[row["method"]], tokens_name(row["kv_len"]), passes, time, against, gib(row)])
    return table("kernel | tokens | passes | ms, or why there is no time | over our time | peak, GiB", rows)


def cpu_table(run: Row) -> str:
    rows = []
    for row in run["rows"]:
        if row["method"] == "race_cpu":
            time = ms(row) if row["us"] else row["note"]
            cores = row["settings"].get("cores", "-")
            rows.append([f"{tokens_name(row['kv_len'])}, {_settings(row)}", cores, time, gib(row), row["runs"] or "-"])
    return table("float32 | cores | ms | peak, GiB | runs", rows)


def slopes_table(run: Row) -> str:
    rows = []
    for fit in run["slopes"]:
        settings = f"{_settings({'settings': fit})}, {fit['dtype']}, {fit['num_qo_heads']}/{fit['num_kv_heads']} heads"
        sizes = f"{tokens_name(fit['from'])} to {tokens_name(fit['to'])}"
        rows.append([NAMES[fit["method"]], settings, sizes, f"{fit['slope']:.2f}"])
    return table("kernel | case | tokens | slope", rows)


def draw(quantity: str, unit: float, axis: str, axes: Axes, run: Row) -> None:
    """A quantity of the causal runs with gradients against tokens, both logarithmic: a line a series."""
    grouped: dict[tuple[object, ...], list[Row]] = {}
    for row in run["rows"]:
        settings = row["settings"]
        alike = settings["backward"] and row["num_qo_heads"] == row["num_kv_heads"] and row[quantity] is not None
        usual = settings["dtype"] == ("float32" if row["method"] == "race_cpu" else "bfloat16")
        if alike and usual and (settings["causal"] or row["method"] in ("race", "race_cpu")):
            grouped.setdefault(series(row), []).append(row)
    for (method, causal, *_), rows in grouped.items():
        points = sorted((row["kv_len"], row[quantity] / unit) for row in rows)
        style = {"marker": "o", "markersize": 4, "color": _COLOURS[str(method)]}
        name = NAMES[str(method)] + ("" if causal else ", not causal")
        axes.loglog(*zip(*points, strict=True), **style, linestyle="-" if causal else ":", label=name)
    sizes = sorted({row["kv_len"] for rows in grouped.values() for row in rows if row["kv_len"].bit_count() == 1})
    axes.set_xticks(sizes, [tokens_name(tokens) for tokens in sizes])
    axes.minorticks_off()
    axes.set_xlabel("tokens (4 heads, head_dim 128)")
    axes.set_ylabel(axis)
    axes.grid(alpha=0.2, color=INK)
    axes.legend(frameon=False, fontsize="small")


_PLOTS: tuple[tuple[Callable[[Axes, Row], None], str], ...] = (
    (partial(draw, "us", 1e3, "ms, forward + backward"), "Time of a forward and a backward run against tokens"),
    (partial(draw, "peak_bytes", 2**30, "peak memory, GiB"), "Peak memory of a forward and a backward run"),
)


def fragment(run: Row) -> str:
    """The generated part of the page."""
    plots = "".join(inline_svg(plot, run, title) for plot, title in _PLOTS) if ours(run, backward=True) else ""
    return (
        f"{facts(run)}{bars_table(run)}### Time and memory against tokens\n\n{plots}{growth_table(run)}"
        f"### Where the time goes\n\n{stages_table(run)}### Other kernels\n\n{peers_table(run)}"
        f"### On the CPU\n\n{cpu_table(run)}### Slopes\n\n{slopes_table(run)}"
        f"### Float32, and grouped heads\n\n{variants_table(run)}"
    )


def _at(run: Row, method: str, tokens: int) -> Row | None:
    """The timed forward and backward row of a peer at that many tokens."""
    rows = [row for row in run["rows"] if row["method"] == method and row["kv_len"] == tokens]
    return next((row for row in rows if row["settings"]["backward"] and row["us"] is not None), None)


def _alike(row: Row) -> dict[str, object]:
    return {name: row["settings"][name] for name in ("causal", "backward", "dtype")}


def _form(causal: bool) -> str:
    return "causal" if causal else "not causal"


def _settings(row: Row) -> str:
    return f"{_form(row['settings']['causal'])}, {'forward + backward' if row['settings']['backward'] else 'forward'}"


def write_page(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "benchmarks"
    source, page = folder / RACE, folder / "generated" / "race.md"
    text = fragment(json.loads(source.read_text())) if source.exists() else "No run is committed yet.\n"
    page.parent.mkdir(exist_ok=True)
    if not page.exists() or page.read_text() != text:
        page.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
