"""Table, sentences and plots of the page on learning, from the JSON that `evaluate learning --json` wrote."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from page_parts import Row, inline_svg, table
from scipy.stats import t as student

from socket_theory.evaluate.learning.figure import draw_betas, draw_losses
from socket_theory.evaluate.learning.summary import Summary, deviation, summaries

if TYPE_CHECKING:
    from sphinx.application import Sphinx

RESULTS = "learning-h200.json"


def facts(run: Row) -> str:
    """What was trained, on what, and where."""
    text, training, model = run["text"], run["training"], run["model"]
    seeds = list(dict.fromkeys(row["seed"] for row in run["runs"]))
    passes = training["tokens"] / text["training_characters"]
    return (
        f"{run['device']}, {run['precision']}, torch {run['versions'].get('torch', '-')}, commit {run['commit'][:7]}. "
        f"{training['steps']} steps of {training['batch']} windows of {training['context']} characters, "
        f"{training['tokens']:,} characters in all or {passes:.2g} times the training text, seeds "
        f"{', '.join(map(str, seeds))}. A model of {run['runs'][-1]['parameters']:,} parameters: "
        f"{model['num_layers']} layers of {model['width']} channels, {model['num_heads']} heads of "
        f"{model['head_dim']}. The text is that of Python {text['python']}: {text['training_characters']:,} characters "
        f"to learn from (SHA-256 {text['training_sha256'][:12]}) and {text['validation_characters']:,} held out "
        f"({text['validation_sha256'][:12]}).\n\n"
    )


def losses_table(run: Row) -> str:
    rows = []
    for each in summaries(run):
        betas = "-" if each.betas is None else f"{each.betas[0]:.2f} to {each.betas[1]:.2f}"
        training = each.curve("training")[0][-1]
        figures = [_with_spread(each.final), f"{each.bits:.3f}", f"{training:.3f}", _signed(each), betas]
        rows.append([each.name, *figures, f"{1e3 * each.seconds_per_step:.1f}"])
    heading = "attention | validation, nats | bits | training, nats | above softmax, nats | learned β | ms a step"
    return table(heading, rows)


def order(run: Row) -> str:
    """The kinds from the least loss on, and which neighbours the seeds do not tell apart."""
    found = sorted(summaries(run), key=lambda each: each.mean)
    names = ", then ".join(f"{each.name} ({each.mean:.3f})" for each in found)
    close = [f"{one.name} and {other.name}" for one, other in pairwise(found) if not _apart(one, other)]
    said = f"From the least validation loss on: {names}."
    if len(found[0].final) > 1:
        said += f" The seeds do not tell apart: {'; '.join(close)}." if close else " The seeds tell all of them apart."
    return f"{said}\n\n"


def _apart(one: Summary, other: Summary) -> bool:
    """Whether the mean of the differences between runs of a seed is not 0, by Student's t at the level of 5 %."""
    losses = {run["seed"]: run["validation"][-1] for run in one.runs}
    pairs = [run["validation"][-1] - losses[run["seed"]] for run in other.runs if run["seed"] in losses]
    spread = deviation(tuple(pairs))
    if spread is None:
        return False
    allowed = float(student.ppf(0.975, len(pairs) - 1))
    return abs(sum(pairs) / len(pairs)) > allowed * spread / math.sqrt(len(pairs))


def _with_spread(values: tuple[float, ...]) -> str:
    spread = deviation(values)
    mean = f"{sum(values) / len(values):.3f}"
    return mean if spread is None else f"{mean}\u00a0±\u00a0{spread:.3f}"


def _signed(each: Summary) -> str:
    if each.mean_above is None:
        return "-"
    spread = deviation(each.above)
    return f"{each.mean_above:+.3f}" + ("" if spread is None else f"\u00a0±\u00a0{spread:.3f}")


def fragment(run: Row) -> str:
    """The generated part of the page."""
    losses = inline_svg(draw_losses, run, "Loss against the characters seen, for each kind of attention")
    betas = inline_svg(draw_betas, run, "beta of every layer against the steps")
    stopped = "The run was stopped, and some models are missing.\n\n" if run.get("stopped") else ""
    return f"{facts(run)}{stopped}{order(run)}{losses_table(run)}{losses}### What beta became\n\n{betas}"


def write_page(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "benchmarks"
    text = fragment(json.loads((folder / RESULTS).read_text()))
    page = folder / "generated" / "learning.md"
    page.parent.mkdir(exist_ok=True)
    if not page.exists() or page.read_text() != text:
        page.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
