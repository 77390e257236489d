"""`socket-theory evaluate ranking`: how well the scores order Gaussian keys."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
import joblib
from rich.console import Console

from socket_theory.cli.columns import Column, print_fitted
from socket_theory.cli.deliver import deliver
from socket_theory.cli.integers import integers
from socket_theory.cli.messages import finishing, plain_messages
from socket_theory.cli.output import Output, json_option, json_text
from socket_theory.cli.stages import stages
from socket_theory.evaluate.provenance import source_commit, versions

if TYPE_CHECKING:
    from socket_theory.evaluate.ranking import Row

SCHEMA = 1
_PIPED_WIDTH = 110
_OPTIONS = {"num_keys": "--tokens", "num_trials": "--trials", "num_queries": "--queries", "k": "--ks"}
_OPTIONS |= {"num_planes": "--planes", "num_tables": "--tables"}


@click.command("ranking")
@click.option("--tokens", default=4096, show_default=True, help="Keys that are ranked.")
@click.option("--head-dim", default=128, show_default=True, help="Length of a key.")
@click.option("--planes", default="2,6,10", show_default=True, callback=integers, help="Planes a table, to compare.")
@click.option("--tables", default="20,60,180", show_default=True, callback=integers, help="Tables, to compare.")
@click.option("--ks", default="4,16,64,256,1024", show_default=True, callback=integers, help="Sizes of the top k.")
@click.option("--trials", default=16, show_default=True, help="Draws of keys, queries and planes; at least 2.")
@click.option("--queries", default=4, show_default=True, help="Queries for each draw of keys.")
@click.option("--seed", default=0, show_default=True, help="Of every draw.")
@json_option
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
    json_output: Output | None,
    commit: str | None,
) -> None:
    """The top k of Gaussian keys by SOCKET's scores and by hard LSH's, against the top k of the exact logits."""
    from socket_theory.evaluate.ranking import RankingSize, evaluate_ranking, rankers

    with plain_messages(**_OPTIONS), stages() as start:
        size = RankingSize(tokens, head_dim, trials, queries)
        advance = start(f"ranking {tokens} keys, {trials} trials", trials)
        with joblib.parallel_config(n_jobs=-1):
            methods = rankers(planes, tables)
            rows = evaluate_ranking(methods, ks, size, seed=seed, on_trial=advance)
        record: dict[str, Any] = {"schema": SCHEMA, "seed": seed, **asdict(size), "ks": ks}
        record |= {"commit": commit or source_commit(), "versions": versions(), "rows": [asdict(row) for row in rows]}
    with plain_messages(), finishing():
        delivered = deliver(
            [(json_output, lambda: json_text(record))], lambda console: _print_rows(rows, ks, console), _PIPED_WIDTH
        )
    click.get_current_context().exit(0 if delivered else 1)


def _print_rows(rows: list[Row], ks: list[int], console: Console) -> None:
    """Precision at every k; the other measures at the middle one."""
    place = len(ks) // 2
    measures = [f"{name}@{ks[place]}" for name in ("ndcg", "rho", "tau")]
    columns = [Column("method", right=False), Column("settings", least=11), Column("P"), Column("L")]
    columns += [Column("bits", drop=len(ks) + 1), Column(f"p@{ks[0]}")]
    columns += [Column(f"p@{k}", drop=rank) for rank, k in enumerate(ks[1:], start=1)]
    columns += [Column(measure, drop=len(ks) + rank) for rank, measure in enumerate(measures, start=2)]
    shown = []
    for row in rows:
        settings, planes, tables = row.settings, row.settings["num_planes"], row.settings["num_tables"]
        name = f"{settings['query_map']} τ={settings['temperature']:g}" if "query_map" in settings else "-"
        figures = row.means["precision"] + [row.means[measure][place] for measure in ("ndcg", "spearman", "kendall")]
        sizes = (str(planes), str(tables), str(planes * tables))
        shown.append([row.method, name, *sizes, *(f"{figure:.3f}" for figure in figures)])
    print_fitted(console, columns, shown)
    worst = max(max(row.standard_errors["precision"]) for row in rows)
    console.print(f"p is precision, rho Spearman's and tau Kendall's correlation; p has s.e. up to {worst:.3f}.")
