"""The table of `bench race`: times in milliseconds, as whole sequences take them."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from socket_theory.cli.columns import Column, print_fitted

_COLUMNS = (
    *(Column("method", right=False), Column("form", right=False), Column("heads", drop=6), Column("tokens")),
    *(Column("ms"), Column("quartiles", drop=5), Column("runs", drop=4), Column("peak GiB", drop=2)),
    *(Column("of the floor", drop=1), Column("stages, ms (of the floor)", drop=3, least=24)),
)


def print_race(result: dict[str, Any], console: Console) -> None:
    """The machine, the rows, and the slopes of time against tokens."""
    read, copy = result["read_bandwidth_tb_s"], result["copy_bandwidth_tb_s"]
    line = f"{result['device']}, driver {result['driver']}: reads {read:.2f} TB/s, copies {copy:.2f} TB/s."
    console.print(line, markup=False)
    print_fitted(console, _COLUMNS, [_cells(row) for row in result["rows"]])
    for fit in result["slopes"]:
        heads = f"{fit['num_qo_heads']}/{fit['num_kv_heads']} heads"
        console.print(
            f"{fit['method']}, {form(fit)}, {heads}: time grows as tokens^{fit['slope']:.2f} from {fit['from']} to "
            f"{fit['to']} tokens",
            markup=False,
        )


def form(settings: dict[str, Any]) -> str:
    """What of a row's settings or of a slope tells it from others of its method."""
    whole = "causal" if settings["causal"] else "not causal"
    return f"{whole}, {'forward + backward' if settings['backward'] else 'forward'}, {settings['dtype']}"


def _cells(row: dict[str, Any]) -> list[str]:
    heads = f"{row['num_qo_heads']}/{row['num_kv_heads']}"
    name = [row["method"], form(row["settings"]), heads, str(row["kv_len"])]
    if row["us"] is None:
        return [*name, "-", "-", "-", "-", "-", row["note"]]
    low, high = (f"{us / 1e3:.2f}" for us in row["us_quartiles"])
    peak = "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**30:.2f}"
    share = "-" if row["share_of_floor"] is None else f"{100 * row['share_of_floor']:.0f} %"
    return [*name, f"{row['us'] / 1e3:.2f}", f"{low}-{high}", str(row["runs"]), peak, share, _stages(row)]


def _stages(row: dict[str, Any]) -> str:
    floors = row["stage_floor_us"] or {}
    words = []
    for stage, us in (row["stage_us"] or {}).items():
        share = f" ({100 * floors[stage] / us:.0f} %)" if stage in floors and us > 0 else ""
        words.append(f"{stage} {us / 1e3:.2f}{share}")
    return ", ".join(words)
