"""`socket-theory verify` runs the claims, `socket-theory claims` lists them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from socket_theory.cli.claim_id import ClaimID, chosen_claims
from socket_theory.cli.deliver import deliver, say
from socket_theory.cli.messages import ending, finishing, plain_messages
from socket_theory.cli.output import Output, json_option, report_option
from socket_theory.cli.repeating import repeating_command
from socket_theory.cli.stages import stages
from socket_theory.cli.verify_table import PIPED_WIDTH, print_results
from socket_theory.core.rng import Key

if TYPE_CHECKING:
    from socket_theory.core.claim import Claim, Effort, Result


def _require_jobs(context: click.Context, parameter: click.Parameter, jobs: int) -> int:
    if jobs == 0 or jobs < -1:
        raise click.BadParameter(f"{jobs} was given: pass 1 or more worker processes, or -1 for one a core.")
    return jobs


def _name_the_option(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> None:
    if words:
        options = " ".join(f"--claim {word}" for word in words)
        raise click.UsageError(f"{' '.join(words)!r} was given without an option: to check a claim, pass {options}.")


@click.command("verify")
@click.option(
    "patterns",
    "--claim",
    multiple=True,
    type=ClaimID(),
    metavar="ID",
    help="An ID, or a letter for its family; repeat for more.",
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
    help="Worker processes, at most one a claim; -1 is one a core.",
)
@json_option
@report_option
@click.argument("misplaced", nargs=-1, metavar="", callback=_name_the_option, expose_value=False)
@click.pass_context
def verify_command(
    context: click.Context,
    patterns: tuple[str, ...],
    effort: Effort,
    seed: int,
    jobs: int,
    json_output: Output | None,
    report_output: Output | None,
) -> None:
    """Check every claim and run its control, a wrong variant that the same check must reject.

    Exits with 1 if a claim does not hold, a control passes or a worker is killed, with 130 after Ctrl-C and with 143
    after SIGTERM. What was finished is kept.
    """
    with plain_messages():
        from socket_theory.claims.registry import CLAIMS

        claims = chosen_claims(CLAIMS, patterns, "--claim")
        results, code, stopped = _run(claims, effort, seed, jobs)
        done = [results[claim.id] for claim in claims if claim.id in results]
        failed = [result.id for result in done if not result.verified]

        def rows() -> str:
            return json.dumps([_json_row(result) for result in done], indent=2, allow_nan=False) + "\n"

        def page() -> str:
            from socket_theory.report.verify_page import verify_report

            command = repeating_command(context, "jobs")
            return verify_report(claims, done, seed=seed, effort=effort, command=command)

        def show(console: Console) -> None:
            print_results(done, claims, console)
            if not stopped and not failed:
                console.print(_praise(len(done)))

        files = [(json_output, rows), (report_output, page)] if done else []
        with finishing():
            delivered = deliver(files, show, PIPED_WIDTH)
    if stopped:
        say(f"{stopped}: {len(done)} of {len(claims)} claims were run, the rest are unknown.")
    if failed:
        say(f"Not verified: {', '.join(failed)}.")
    context.exit(code or int(bool(failed) or not delivered))


def _praise(count: int) -> str:
    if count == 1:
        return "The claim holds and its control is rejected."
    return f"All {count} claims hold and every control is rejected."


@click.command("claims")
@click.argument("patterns", nargs=-1, type=ClaimID(), metavar="[ID]...")
@json_option
@click.pass_context
def claims_command(context: click.Context, patterns: tuple[str, ...], json_output: Output | None) -> None:
    """List claims, all or those of an ID or a family's letter: id, title, statement and source."""
    with plain_messages():
        from socket_theory.claims.registry import CLAIMS

        claims = chosen_claims(CLAIMS, patterns, "ID")
        fields = ("id", "title", "statement", "source")

        def rows() -> str:
            return json.dumps([{name: getattr(claim, name) for name in fields} for claim in claims], indent=2) + "\n"

        def show(console: Console) -> None:
            for claim in claims:
                console.print(f"{claim.id}  {claim.title} ({claim.kind})", style="bold", markup=False)
                for line in (claim.statement, f"Source: {claim.source}.", f"Control: {claim.wrong}."):
                    console.print(line, markup=False)
                console.print()

        delivered = deliver([(json_output, rows)], show, 80)
    context.exit(0 if delivered else 1)


def _run(claims: Sequence[Claim], effort: Effort, seed: int, jobs: int) -> tuple[dict[str, Result], int, str]:
    """Results by id as far as they got; the exit code and the words for what stopped the run, 0 and "" if nothing."""
    from socket_theory.claims.registry import verify

    results: dict[str, Result] = {}
    with stages() as start:
        advance = start("verifying one claim" if len(claims) == 1 else f"verifying {len(claims)} claims", len(claims))
        try:
            for result in verify(claims, key=Key.from_seed(seed), effort=effort, n_jobs=jobs):
                results[result.id] = result
                advance()
        except (BrokenProcessPool, KeyboardInterrupt) as stop:
            what, code = ending(stop)
            return results, code, what + (" (fewer --jobs need less)" if code == 1 else "")
    return results, 0, ""


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
