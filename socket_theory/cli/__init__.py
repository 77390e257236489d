"""The `socket-theory` command."""

from __future__ import annotations

import click

from socket_theory import __version__
from socket_theory.cli.bench import bench_group
from socket_theory.cli.deliver import Commands
from socket_theory.cli.evaluate import evaluate_group
from socket_theory.cli.fetch import fetch_command
from socket_theory.cli.learning import learning_command
from socket_theory.cli.ranking import ranking_command
from socket_theory.cli.tightness import tightness_command
from socket_theory.cli.verify import claims_command, verify_command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="socket-theory")
def main() -> None:
    """Attention estimators you can trust: check the theorems, fetch a model, evaluate on real attention."""


for command in (verify_command, claims_command, fetch_command, evaluate_group, bench_group):
    main.add_command(command)
evaluate_group.add_command(ranking_command)
evaluate_group.add_command(learning_command)
evaluate_group.add_command(tightness_command)
