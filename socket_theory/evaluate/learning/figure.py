"""The curves of a record: losses against the characters that were trained on."""

from __future__ import annotations

from io import StringIO

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from socket_theory.evaluate.learning.summary import Record, Summary, summaries

# Mid tones are legible on white and on black.
_RACE = ("#3b82f6", "#16a34a", "#a855f7", "#ec4899")
_OTHERS = {"angular": "#d97706", "softmax": "#8b8f98"}


def draw_losses(axes: Axes, record: Record) -> None:
    """Validation as a line with a band from the least to the largest seed, training as dots of the seeds' mean."""
    training = record["training"]
    each = training["batch"] * training["context"] / 1e6
    for summary, colour in _coloured(record):
        seen = [step * each for step in summary.runs[0]["steps"]]
        mean, least, most = summary.curve("validation")
        axes.plot(seen, mean, color=colour, label=f"{summary.name}: {summary.mean:.3f}")
        axes.fill_between(seen, least, most, color=colour, alpha=0.2, linewidth=0)
        axes.plot(seen[1:], summary.curve("training")[0][1:], ":", color=colour, linewidth=1)
    axes.set_yscale("log")
    ticks = [
        tick for tick in (0.8, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0) if axes.get_ylim()[0] < tick < axes.get_ylim()[1]
    ]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("million characters seen")
    axes.set_ylabel("nats per character")
    axes.grid(alpha=0.2)
    axes.legend(frameon=False, title="validation loss; dotted: training")


def draw_betas(axes: Axes, record: Record) -> None:
    """beta of every layer against the steps: a line is the mean over the seeds of one layer."""
    for summary, colour in _coloured(record):
        if summary.betas:
            layers = zip(*(zip(*run["betas"], strict=True) for run in summary.runs), strict=True)
            for layer, seeds in enumerate(layers):
                mean = [sum(at) / len(at) for at in zip(*seeds, strict=True)]
                steps = summary.runs[0]["steps"]
                axes.plot(steps, mean, color=colour, alpha=0.9, label=None if layer else summary.name)
                axes.annotate(f" {layer}", (steps[-1], mean[-1]), va="center", fontsize=8)
    axes.set_xlabel("steps")
    axes.set_ylabel("β, with the number of the layer")
    axes.grid(alpha=0.2)
    axes.legend(frameon=False)


def losses_svg(record: Record) -> str:
    """The losses as one SVG file."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "losses"}):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        draw_losses(figure.add_subplot(), record)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _coloured(record: Record) -> list[tuple[Summary, str]]:
    found, race = [], 0
    for summary in summaries(record):
        kind = summary.runs[0]["kind"]
        found.append((summary, _OTHERS.get(kind, _RACE[race % len(_RACE)])))
        race += kind == "race"
    return found
