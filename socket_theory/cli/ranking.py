"""`socket-theory evaluate ranking`: how well the scores order Gaussian keys."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import joblib
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from socket_theory.cli.messages import plain_messages
from socket_theory.evaluate.provenance import source_commit, versions
from socket_theory.files import replacing

if TYPE_CHECKING:
    from socket_theory.evaluate.ranking import Row

SCHEMA = 1
_PIPED_WIDTH = 110


def _integers(context: click.Context, parameter: click.Parameter, given: str) -> list[int]:
    try:
        return sorted({int(number) for number in given.split(",")})
    except ValueError:
        raise click.BadParameter(f"{given!r} is not a list of integers: pass some such as 4,16,64.") from None


@click.command("ranking")
@click.option("--tokens", default=4096, show_default=True, help="Keys that are ranked.")
@click.option("--head-dim", default=128, show_default=True, help="Length of a key.")
@click.option("--planes", default="2,6,10", show_default=True, callback=_integers, help="Planes a table, to compare.")
@click.option("--tables", default="20,60,180", show_default=True, callback=_integers, help="Tables, to compare.")
@click.option("--ks", default="4,16,64,256,1024", show_default=True, callback=_integers, help="Sizes of the top k.")
@click.option("--trials", default=16, show_default=True, help="Draws of keys, queries and planes; at least 2.")
@click.option("--queries", default=4, show_default=True, help="Queries for each draw of keys.")
@click.option("--seed", default=0, show_default=True, help="Of every draw.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here.")
@click.option("--commit", help="Recorded in the JSON; by default the commit of this source tree.")
def ranking_command(
    tokens: int,
    head_dim: int,
    planes: list[int],
    tables: list[int],
    ks: list[int],
    trials: int,
    queries: int,
    seed: int,
    json_path: Path | None,
    commit: str | None,
) -> None:
    """The top k of Gaussian keys by SOCKET's scores and by hard LSH's, against the top k of the exact logits."""
    from socket_theory.evaluate.ranking import RankingSize, evaluate_ranking, rankers

    with plain_messages(), _progress() as progress:
        size = RankingSize(tokens, head_dim, trials, queries)
        task = progress.add_task("ranking", total=trials)
        with joblib.parallel_config(n_jobs=-1):
            methods = rankers(planes, tables)
            rows = evaluate_ranking(methods, ks, size, seed=seed, on_trial=lambda: progress.advance(task))
        record: dict[str, Any] = {"schema": SCHEMA, "seed": seed, **asdict(size), "ks": ks}
        record |= {"commit": commit or source_commit(), "versions": versions(), "rows": [asdict(row) for row in rows]}
        if json_path:
            with replacing(json_path) as file:
                file.write(json.dumps(record, indent=1, allow_nan=False).encode() + b"\n")
    _print_rows(rows, ks)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _print_rows(rows: list[Row], ks: list[int]) -> None:
    """Precision at every k; the other measures at the middle one."""
    place = len(ks) // 2
    terminal = Console(highlight=False)
    console = terminal if terminal.is_terminal else Console(highlight=False, width=_PIPED_WIDTH)
    table = Table("method", "settings", box=None, pad_edge=False)
    headings = [f"p@{k}" for k in ks] + [f"{name}@{ks[place]}" for name in ("ndcg", "rho", "tau")]
    for heading in ("P", "L", "bits", *headings):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        settings, planes, tables = row.settings, row.settings["num_planes"], row.settings["num_tables"]
        name = f"{settings['query_map']} τ={settings['temperature']:g}" if "query_map" in settings else "-"
        figures = row.means["precision"] + [row.means[measure][place] for measure in ("ndcg", "spearman", "kendall")]
        sizes = (str(planes), str(tables), str(planes * tables))
        table.add_row(row.method, name, *sizes, *(f"{figure:.3f}" for figure in figures))
    console.print(table)
    worst = max(max(row.standard_errors["precision"]) for row in rows)
    console.print(f"p is precision, rho Spearman's and tau Kendall's correlation; p has s.e. up to {worst:.3f}.")
