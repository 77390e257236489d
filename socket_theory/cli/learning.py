"""`socket-theory evaluate learning`: a small language model trained with RACE, angular and softmax attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from socket_theory.cli.columns import Column, print_fitted
from socket_theory.cli.deliver import deliver, say
from socket_theory.cli.integers import integers
from socket_theory.cli.messages import ending, finishing, plain_messages
from socket_theory.cli.output import Output, OutputFile, json_option, json_text
from socket_theory.cli.stages import stages
from socket_theory.evaluate.learning.summary import summaries
from socket_theory.evaluate.learning.text import standard_library
from socket_theory.evaluate.provenance import source_commit, versions

if TYPE_CHECKING:
    from socket_theory.evaluate.learning.train import Run

_PIPED_WIDTH = 110
_OPTIONS = {"num_planes": "--planes", "num_tables": "--tables"}
_COLUMNS = (
    *(
        Column("attention", right=False),
        Column("seeds", drop=2),
        Column("nats"),
        Column("s.d."),
        Column("bits", drop=3),
    ),
    *(Column("above softmax", drop=1), Column("beta", drop=5), Column("ms/step", drop=4)),
)


@click.command("learning")
@click.option("--steps", default=1000, show_default=True, help="Of the optimiser.")
@click.option("--batch", default=64, show_default=True, help="Windows of text a step.")
@click.option("--context", default=512, show_default=True, help="Characters of a window.")
@click.option("--width", default=192, show_default=True, help="Channels of the model.")
@click.option("--seeds", default="0,1,2", show_default=True, callback=integers, help="Of weights, planes and batches.")
@click.option(
    "--planes", default=4, show_default=True, help="RACE's planes a table, the exponent of angular attention."
)
@click.option("--tables", default="4,8", show_default=True, callback=integers, help="RACE's tables, to compare.")
@click.option("--beta", default=1.0, show_default=True, help="Where RACE's beta starts.")
@click.option("--learning-rate", default=2e-3, show_default=True, help="The largest one of the schedule.")
@json_option
@click.option("--figure", type=OutputFile(), metavar="FILE", help="Also draw the losses, as an SVG file.")
@click.option("--commit", help="Recorded in the JSON; by default the commit of this source tree.")
@click.pass_context
def learning_command(
    click_context: click.Context,
    steps: int,
    batch: int,
    context: int,
    width: int,
    seeds: list[int],
    planes: int,
    tables: list[int],
    beta: float,
    learning_rate: float,
    json_output: Output | None,
    figure: Output | None,
    commit: str | None,
) -> None:
    """Train a small causal language model with RACE, with exact angular and with softmax attention, at equal budget.

    It reads characters of Python's help texts and standard library, and is judged on parts that were held out. With the
    default settings a GPU takes minutes and a CPU many hours, which --steps, --batch, --context and --width shorten. A
    run that is stopped keeps the models whose training was finished.
    """
    runs: list[Run] = []
    stopped, code = "", 0
    with plain_messages(**_OPTIONS), stages() as start:
        from socket_theory.evaluate.learning.experiment import device_to_train_on, kinds_of, record, trained
        from socket_theory.evaluate.learning.model import ModelSize
        from socket_theory.evaluate.learning.train import Plan

        size, plan = ModelSize(width=width), Plan(steps, batch, context, learning_rate)
        kinds, device = kinds_of(planes, tables, beta), device_to_train_on()
        if device.type == "cpu":
            say("torch has no GPU here: the models train on the CPU, in float32.")
        corpus = standard_library()
        try:
            for run in trained(corpus, kinds, seeds, size, plan, device, start):
                runs.append(run)
        except KeyboardInterrupt as stop:
            if not runs:
                raise
            stopped, code = ending(stop)
    with plain_messages(), finishing():
        made: dict[str, Any] = record(corpus, size, plan, device, runs)
        made |= {"commit": commit or source_commit(), "versions": versions()} | ({"stopped": True} if stopped else {})

        def drawn() -> str:
            from socket_theory.evaluate.learning.figure import losses_svg

            return losses_svg(made)

        files = [(json_output, lambda: json_text(made)), (figure, drawn)]
        delivered = deliver(files, lambda console: _print_rows(made, console), _PIPED_WIDTH)
    if stopped:
        say(f"{stopped}: the {len(runs)} models whose training was finished are kept.")
    click_context.exit(code or int(not delivered))


def _print_rows(made: dict[str, Any], console: Console) -> None:
    """A row for each kind of attention, and what they are means of."""
    rows = []
    for found in summaries(made):
        spread = "-" if found.spread is None else f"{found.spread:.4f}"
        above = "-" if found.mean_above is None else f"{found.mean_above:+.4f}"
        betas = "-" if found.betas is None else "{:.2f} to {:.2f}".format(*found.betas)
        figures = [
            f"{found.mean:.4f}",
            spread,
            f"{found.bits:.4f}",
            above,
            betas,
            f"{1e3 * found.seconds_per_step:.1f}",
        ]
        rows.append([found.name, str(len(found.runs)), *figures])
    print_fitted(console, list(_COLUMNS), rows)
    tokens, parameters = made["training"]["tokens"], made["runs"][0]["parameters"]
    console.print(
        f"Validation loss per character after {tokens} characters, a model of {parameters} parameters, "
        f"{made['device']}; s.d. is over seeds, above softmax with the same seed."
    )
