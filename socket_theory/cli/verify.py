"""`socket-theory verify` runs the claims, `socket-theory claims` lists them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from socket_theory.cli.messages import INTERRUPTED, plain_messages, quiet_cleanup
from socket_theory.cli.report_file import repeating_command, report_option, write_report
from socket_theory.cli.verify_table import print_results
from socket_theory.rng import Key

if TYPE_CHECKING:
    from socket_theory.claims.engine import Claim, Effort, Result

_json_option = click.option(
    "json_file",
    "--json",
    type=click.File("w", lazy=False),
    metavar="FILE",
    help="Also write the result as JSON; with - it goes to the standard output, and all else to the error output.",
)


def _require_jobs(context: click.Context, parameter: click.Parameter, jobs: int) -> int:
    if jobs == 0 or jobs < -1:
        raise click.BadParameter(f"{jobs} was given: pass 1 or more worker processes, or -1 for one a core.")
    return jobs


@click.command("verify")
@click.option(
    "patterns", "--claim", multiple=True, metavar="ID", help="An ID, or a letter for its family; repeat for more."
)
@click.option(
    "--effort",
    type=click.Choice(["quick", "full", "extreme"]),
    default="quick",
    show_default=True,
    help="Sample sizes: full is ten times quick, extreme a hundred times.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed draws another set of instances.")
@click.option(
    "--jobs",
    type=int,
    default=-1,
    show_default=True,
    callback=_require_jobs,
    help="Worker processes; -1 is one a core.",
)
@_json_option
@report_option
@click.pass_context
def verify_command(
    context: click.Context,
    patterns: tuple[str, ...],
    effort: Effort,
    seed: int,
    jobs: int,
    json_file: IO[str] | None,
    report_path: Path | None,
) -> None:
    """Check every claim and run its control, a wrong variant that the same check must reject.

    Exits with 1 if a claim does not hold or a control passes, and with 130 if interrupted.
    """
    from socket_theory.claims.registry import CLAIMS

    claims = _select(CLAIMS, patterns)
    results, interrupted = _run(claims, effort, seed, jobs)
    done = [results[claim.id] for claim in claims if claim.id in results]
    print_results(done, claims, aside=_is_standard_output(json_file))
    if json_file is not None:
        json.dump([_json_row(result) for result in done], json_file, indent=2, allow_nan=False)
    if report_path is not None:
        from socket_theory.report.verify_page import verify_report

        command = repeating_command(context, "json_file", "jobs")
        with plain_messages():
            write_report(report_path, verify_report(claims, done, seed=seed, effort=effort, command=command))
    if interrupted:
        click.echo(f"Interrupted: {len(done)} of {len(claims)} claims were run, the rest are unknown.", err=True)
        context.exit(INTERRUPTED)
    failed = [result.id for result in done if not result.verified]
    if failed:
        click.echo(f"Not verified: {', '.join(failed)}.", err=True)
        context.exit(1)
    click.echo(f"All {len(done)} claims hold and every control is rejected.", err=_is_standard_output(json_file))


@click.command("claims")
@_json_option
def claims_command(json_file: IO[str] | None) -> None:
    """List every claim: its id, title, statement and source."""
    from rich.console import Console

    from socket_theory.claims.registry import CLAIMS

    if json_file is not None:
        rows = [{name: getattr(claim, name) for name in ("id", "title", "statement", "source")} for claim in CLAIMS]
        json.dump(rows, json_file, indent=2)
    console = Console(highlight=False, markup=False, soft_wrap=False, stderr=_is_standard_output(json_file))
    for claim in CLAIMS:
        console.print(f"{claim.id}  {claim.title} ({claim.kind})", style="bold")
        for line in (claim.statement, f"Source: {claim.source}.", f"Control: {claim.wrong}."):
            console.print(line)
        console.print()


def _is_standard_output(file: IO[str] | None) -> bool:
    return file is not None and file.name == sys.stdout.name


def _select(claims: Sequence[Claim], patterns: tuple[str, ...]) -> tuple[Claim, ...]:
    from socket_theory.claims.engine import select

    try:
        chosen = {claim.id for pattern in patterns for claim in select(claims, pattern)}
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--claim") from None
    return tuple(claim for claim in claims if not patterns or claim.id in chosen)


def _run(claims: Sequence[Claim], effort: Effort, seed: int, jobs: int) -> tuple[dict[str, Result], bool]:
    """Results by id as far as they got, and whether the run was interrupted."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from socket_theory.claims.registry import verify

    quiet_cleanup()
    results: dict[str, Result] = {}
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("claims", total=len(claims))
        try:
            for result in verify(claims, key=Key.from_seed(seed), effort=effort, n_jobs=jobs):
                results[result.id] = result
                progress.advance(task)
        except KeyboardInterrupt:
            return results, True
    return results, False


def _json_row(result: Result) -> dict[str, Any]:
    measured = result.measurement
    return {
        "id": result.id,
        "holds": measured.holds,
        "observed": _finite(measured.observed),
        "allowance": _finite(measured.allowed),
        "tightness": _finite(measured.tightness),
        "control_rejected": result.control.rejects,
        "seconds": result.seconds,
    } | ({} if result.error is None else {"error": result.error})


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
