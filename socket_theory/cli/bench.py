"""`socket-theory bench`: how fast a decode step is on this machine's GPU, behind a correctness gate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from socket_gpu import missing_requirement
from socket_gpu.bench.cases import GROUP_NAMES
from socket_theory.cli.messages import plain_messages
from socket_theory.evaluate.files import replacing
from socket_theory.evaluate.provenance import source_commit

_PIPED_WIDTH = 150


class _NoGpuError(click.ClickException):
    exit_code = 2


@click.group("bench")
def bench_group() -> None:
    """Measure speed on this machine's GPU, behind a correctness gate."""


@bench_group.command("decode")
@click.option(
    "--only",
    "groups",
    multiple=True,
    type=click.Choice(GROUP_NAMES),
    help="One group of rows; repeat for more. All by default.",
)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here.")
@click.option("--commit", help="Recorded in the JSON; by default the commit of this source tree.")
def decode_command(groups: tuple[str, ...], json_path: Path | None, commit: str | None) -> None:
    """Time SOCKET's decode step, its index and dense attention: graph replay, cold L2 cache, median of 50.

    Exits with 1, and shows no speed, if any result fails its gate, and with 2 without a usable GPU.
    """
    missing = missing_requirement()
    if missing:
        raise _NoGpuError(f"the benchmark needs a GPU, and {missing}")
    from socket_gpu.bench.decode import bench_decode

    with plain_messages():
        known = commit or source_commit()
        if known is None:
            raise ValueError("this copy of the source has no git history to name its commit: pass --commit HASH.")
        result = bench_decode(groups or GROUP_NAMES, known, lambda case: click.echo(f"measuring {case}", err=True))
        if json_path:
            with replacing(json_path) as file:
                file.write(json.dumps(result, indent=1, allow_nan=False).encode() + b"\n")
    _print_result(result)


def _print_result(result: dict[str, Any]) -> None:
    terminal = Console(highlight=False, markup=False)
    console = terminal if terminal.is_terminal else Console(highlight=False, markup=False, width=_PIPED_WIDTH)
    read, copy = result["read_bandwidth_tb_s"], result["copy_bandwidth_tb_s"]
    console.print(f"{result['device']}, driver {result['driver']}: reads {read:.2f} TB/s, copies {copy:.2f} TB/s.")
    table = Table("method", "settings", box=None, pad_edge=False)
    for heading in ("batch", "heads", "tokens", "kept", "µs", "quartiles", "× dense", "bandwidth"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("stages, µs")
    for row in result["rows"]:
        table.add_row(*_cells(row))
    console.print(table)


def _cells(row: dict[str, Any]) -> list[str]:
    shape = [str(row["batch"]), f"{row['num_qo_heads']}/{row['num_kv_heads']}", str(row["kv_len"])]
    kept = "-" if row["kept_tokens"] is None else str(row["kept_tokens"])
    settings = row["settings"]
    words = settings.get("call") or (f"P={settings['num_planes']}" if "num_planes" in settings else "-")
    if row["us"] is None:
        return [row["method"], words, *shape, kept, "-", "-", "-", "-", row["note"]]
    low, high = row["us_quartiles"]
    ratio = "-" if row["ratio_to_best_dense"] is None else f"{row['ratio_to_best_dense']:.2f}"
    stages = ", ".join(f"{name} {us:.1f}" for name, us in (row["stage_us"] or {}).items())
    figures = [f"{row['us']:.1f}", f"{low:.1f}-{high:.1f}", ratio, f"{100 * row['fraction_of_read_bandwidth']:.0f} %"]
    return [row["method"], words, *shape, kept, *figures, stages]
