"""`socket-theory evaluate tightness`: every bound beside what it bounds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
import joblib
from rich.console import Console

from socket_theory.cli.columns import Column, print_fitted
from socket_theory.cli.deliver import deliver
from socket_theory.cli.messages import finishing, plain_messages
from socket_theory.cli.output import Output, json_option, json_text
from socket_theory.cli.stages import stages
from socket_theory.evaluate.provenance import source_commit, versions

SCHEMA = 1
_PIPED_WIDTH = 110


@click.command("tightness")
@click.option("--trials", default=200, show_default=True, help="Sets of fresh tables or draws; at least 20.")
@click.option("--seed", default=0, show_default=True, help="Of every draw.")
@json_option
@click.option("--commit", help="Recorded in the JSON; by default the commit of this source tree.")
def tightness_command(trials: int, seed: int, json_output: Output | None, commit: str | None) -> None:
    """Every bound over what it bounds: at a toy setting, the paper's and the deployed one.

    What is bounded is the (1 - delta)-quantile of errors at delta = .05, a value, or the smallest number of tables that
    does. At 200 trials it takes a few minutes on two cores.
    """
    from socket_theory.evaluate.tightness.entry import DELTA
    from socket_theory.evaluate.tightness.settings import SETTINGS, evaluate_tightness

    rows: list[dict[str, Any]] = []
    with plain_messages(), stages() as start:
        advance = start(f"comparing bounds at {len(SETTINGS)} settings, {trials} trials", len(SETTINGS))
        with joblib.parallel_config(n_jobs=-1):
            for setting, found in evaluate_tightness(trials, seed=seed, settings=SETTINGS):
                rows += [{"family": setting.family, **asdict(row)} for row in found]
                advance()
        described = [{"family": s.family, "name": s.name, "words": s.words} for s in SETTINGS]
        record: dict[str, Any] = {"schema": SCHEMA, "seed": seed, "trials": trials, "delta": DELTA}
        record |= {"commit": commit or source_commit(), "versions": versions(), "settings": described, "rows": rows}
    with plain_messages(), finishing():
        delivered = deliver(
            [(json_output, lambda: json_text(record))], lambda console: _print_rows(rows, console), _PIPED_WIDTH
        )
    click.get_current_context().exit(0 if delivered else 1)


def _print_rows(rows: list[dict[str, Any]], console: Console) -> None:
    """A line for each bound, a column for each setting."""
    names = list(dict.fromkeys(row["setting"] for row in rows))
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        shown = "-" if row["tightness"] is None else f"{row['tightness']:.3g}"
        lines.setdefault((row["claim"], row["title"]), {})[row["setting"]] = shown
    columns = [Column("claim", right=False), Column("bound", least=20), *(Column(name) for name in names)]
    print_fitted(console, columns, [[*line, *(cells.get(name, "") for name in names)] for line, cells in lines.items()])
    console.print("Bound over what it bounds: 1 is sharp; - where the bound is infinite and says nothing.")
