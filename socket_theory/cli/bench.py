"""`socket-theory bench`: how fast the kernels are on this machine's GPU, behind a correctness gate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from socket_gpu import missing_requirement
from socket_gpu.race.cases import GROUP_NAMES as RACE_GROUP_NAMES
from socket_gpu.socket_lsh.cases import GROUP_NAMES
from socket_theory.cli.columns import Column, print_fitted
from socket_theory.cli.deliver import deliver, say
from socket_theory.cli.messages import plain_messages
from socket_theory.cli.output import Output, json_option, json_text
from socket_theory.cli.race_table import print_race
from socket_theory.evaluate.capture import Capture, load_capture
from socket_theory.evaluate.provenance import source_commit

_PIPED_WIDTH, _RACE_PIPED_WIDTH = 150, 190
_COLUMNS = (
    *(Column("method", right=False), Column("settings", least=10), Column("batch", drop=6), Column("heads", drop=5)),
    *(Column("tokens"), Column("kept", drop=2), Column("µs"), Column("quartiles", drop=4), Column("× dense", drop=1)),
    *(Column("bandwidth", drop=3), Column("stages, µs", drop=7, least=16)),
)
_Announce = Callable[[str], None]
_Print = Callable[[dict[str, Any], Console], None]

_CAPTURE = click.option(
    "--capture",
    "capture_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An npz of a model's q, k, v and positions, as evaluate attention keeps: every layer is measured too.",
)
_COMMIT = click.option("--commit", help="Recorded in the JSON; by default the commit of this source tree.")


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
@_CAPTURE
@json_option
@_COMMIT
def decode_command(
    groups: tuple[str, ...], capture_path: Path | None, json_output: Output | None, commit: str | None
) -> None:
    """Time SOCKET's decode step, its index and dense attention: graph replay, cold L2 cache, median of 50.

    Exits with 1, and shows no speed, if any result fails its gate, and with 2 without a usable GPU.
    """
    _require_gpu()
    from socket_gpu.socket_lsh.bench import bench_decode

    def bench(known: str, announce: _Announce) -> dict[str, Any]:
        return bench_decode(groups or GROUP_NAMES, _loaded(capture_path), known, announce)

    _run(bench, json_output, commit)


@bench_group.command("santa")
@_CAPTURE
@json_option
@_COMMIT
def santa_command(capture_path: Path | None, json_output: Output | None, commit: str | None) -> None:
    """Time SANTA's decode step beside dense attention: graph replay, cold L2 cache, median of 50.

    Exits with 1, and shows no speed, if any result fails its gate, and with 2 without a usable GPU.
    """
    _require_gpu()
    from socket_gpu.santa.bench import bench_santa

    def bench(known: str, announce: _Announce) -> dict[str, Any]:
        return bench_santa(_loaded(capture_path), known, announce)

    _run(bench, json_output, commit)


@bench_group.command("race")
@click.option(
    "--only",
    "groups",
    multiple=True,
    type=click.Choice(RACE_GROUP_NAMES),
    help="One group of rows; repeat for more. All by default.",
)
@json_option
@_COMMIT
def race_command(groups: tuple[str, ...], json_output: Output | None, commit: str | None) -> None:
    """Time RACE attention of whole sequences, forward and backward, beside other kernels and the CPU.

    Graph replay, cold L2 cache, median of 30 runs, or of 5 where one takes more than 50 ms. Exits with 1, and shows no
    speed, if any result fails its gate, and with 2 without a usable GPU.
    """
    _require_gpu()
    from socket_gpu.race.bench import bench_race

    def bench(known: str, announce: _Announce) -> dict[str, Any]:
        return bench_race(groups or RACE_GROUP_NAMES, known, announce)

    _run(bench, json_output, commit, print_race, _RACE_PIPED_WIDTH)


def _loaded(capture_path: Path | None) -> Capture | None:
    return load_capture(capture_path) if capture_path else None


def _require_gpu() -> None:
    missing = missing_requirement()
    if missing:
        raise _NoGpuError(f"the benchmark needs a GPU, and {missing}")


def _run(
    bench: Callable[[str, _Announce], dict[str, Any]],
    json_output: Output | None,
    commit: str | None,
    print_result: _Print | None = None,
    piped_width: int = _PIPED_WIDTH,
) -> None:
    """Write what `bench` finds for the commit where asked, and print it; what goes wrong is said in one line."""
    with plain_messages():
        known = commit or source_commit()
        if known is None:
            raise click.UsageError("this copy of the source has no git history to name its commit: pass --commit HASH.")
        result = bench(known, lambda case: say(f"measuring {case}"))
        files = [(json_output, lambda: json_text(result))]
        delivered = deliver(files, lambda console: (print_result or _print_result)(result, console), piped_width)
    click.get_current_context().exit(0 if delivered else 1)


def _print_result(result: dict[str, Any], console: Console) -> None:
    read, copy = result["read_bandwidth_tb_s"], result["copy_bandwidth_tb_s"]
    line = f"{result['device']}, driver {result['driver']}: reads {read:.2f} TB/s, copies {copy:.2f} TB/s."
    console.print(line, markup=False)
    print_fitted(console, _COLUMNS, [_cells(row) for row in result["rows"]])


def _cells(row: dict[str, Any]) -> list[str]:
    shape = [str(row["batch"]), f"{row['num_qo_heads']}/{row['num_kv_heads']}", str(row["kv_len"])]
    kept = "-" if row["kept_tokens"] is None else str(row["kept_tokens"])
    words = _settings(row["settings"])
    if row["us"] is None:
        return [row["method"], words, *shape, kept, "-", "-", "-", "-", row["note"]]
    low, high = row["us_quartiles"]
    ratio = "-" if row["ratio_to_best_dense"] is None else f"{row['ratio_to_best_dense']:.2f}"
    stages = ", ".join(f"{name} {us:.1f}" for name, us in (row["stage_us"] or {}).items())
    figures = [f"{row['us']:.1f}", f"{low:.1f}-{high:.1f}", ratio, f"{100 * row['fraction_of_read_bandwidth']:.0f} %"]
    return [row["method"], words, *shape, kept, *figures, stages]


def _settings(settings: dict[str, Any]) -> str:
    words = [settings["call"]] if settings.get("call") else []
    words += [f"P={settings['num_planes']}"] if "num_planes" in settings else []
    words += [f"τ={settings['temperature']}"] if "temperature" in settings else []
    words += ["×|v|"] if settings.get("value_weight") else []
    words += [f"S={settings['num_samples']} {settings['sampler']}"] if "num_samples" in settings else []
    words += [settings["input"]] if "input" in settings else []
    return ", ".join(words) or "-"
