"""`socket-theory evaluate`: estimators on the queries, keys and values of a real language model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import joblib
from rich.console import Console

from socket_theory.cli.attention_tables import PIPED_WIDTH, print_tables
from socket_theory.cli.deliver import deliver, say
from socket_theory.cli.messages import FEWER_WORKERS, ending, finishing, plain_messages
from socket_theory.cli.output import Output, json_option, json_text, report_option
from socket_theory.cli.repeating import repeating_command
from socket_theory.cli.stages import Start, stages
from socket_theory.core.files import file_sha256
from socket_theory.core.selection import Budget
from socket_theory.evaluate.accuracy import Row, evaluate_attention
from socket_theory.evaluate.capture import Capture, load_capture
from socket_theory.evaluate.layers import require_layers
from socket_theory.evaluate.prefill import attention_layers, capture_text, default_text, read_text, weights_sha256
from socket_theory.evaluate.provenance import source_commit, versions
from socket_theory.evaluate.sampled_attention import SampledRow, evaluate_sampling
from socket_theory.evaluate.sampling_variance import VarianceCurve
from socket_theory.evaluate.sweep import best_socket, sweep
from socket_theory.evaluate.weights import find_weights

SCHEMA = 1
CONTEXT = 8192
POSITIONS = 8
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("evaluate")
def evaluate_group() -> None:
    """Judge estimators on real queries, keys and values."""


@evaluate_group.command("attention")
@click.option("--model", help="smollm2 (the default), a GGUF file or a checkpoint folder.")
@click.option("--qkv", type=_FILE, help="An npz with q, k, v and positions instead of a model.")
@click.option("--text", type=_FILE, help="UTF-8 text to read; Python's own help texts by default.")
@click.option("--context", type=click.IntRange(min=1), help="Tokens of the text to read.  [default: 8192]")
@click.option("--density", default=0.05, show_default=True, help="Share of the tokens kept, forced ones included.")
@click.option("--sink", default=16, show_default=True, help="First tokens that are always kept.")
@click.option("--window", default=64, show_default=True, help="Last tokens that are always kept.")
@click.option("--layers", help="Comma-separated layers to evaluate; all by default.")
@click.option("--seed", default=0, show_default=True, help="Of the hyperplanes and of every draw.")
@json_option
@report_option
@click.option("--commit", help="Recorded with the results; by default the commit of this source tree.")
@click.pass_context
def attention_command(
    click_context: click.Context,
    model: str | None,
    qkv: Path | None,
    text: Path | None,
    context: int | None,
    density: float,
    sink: int,
    window: int,
    layers: str | None,
    seed: int,
    json_output: Output | None,
    report_output: Output | None,
    commit: str | None,
) -> None:
    """Relative output error of every method against exact attention, at 8 positions of a text.

    The methods that sample values or scores (SANTA, Bernoulli) follow in a table of their own, for several numbers of
    samples; density, sink and window do not concern them. A report also measures the main methods at four densities
    and four sizes of the index. On two cores a first run takes three minutes, and four with a report; a second one a
    minute less, as what the model saw is kept.
    """
    if qkv and (model or text or context):
        raise click.UsageError("--qkv brings its own tokens: leave out --model, --text and --context.")
    chosen, name = _parse_layers(layers), "smollm2" if model is None else model
    with plain_messages(fraction="--density"), stages() as start:
        budget = Budget(fraction=density, sink=sink, window=window)
        if qkv:
            capture, hashes = load_capture(qkv), {"model_sha256": file_sha256(qkv), "text_sha256": None}
        else:
            capture, hashes = _capture(name, text, context or CONTEXT, chosen, start)
        used = require_layers(chosen, capture.layers.tolist())
        layer_count = "one layer" if len(used) == 1 else f"{len(used)} layers"

        def stage(name: str) -> Callable[[], None]:
            return start(f"{name}, {layer_count}", len(used))

        sampled: list[SampledRow] = []
        variance: list[VarianceCurve] = []
        sweeps: dict[str, list[Row]] = {}
        stopped, code = "", 0
        with joblib.parallel_config(n_jobs=-1):
            advance = stage("comparing methods")
            rows = evaluate_attention(capture, budget, seed=seed, layers=used, on_layer=advance)
            try:
                advance = stage("sampling values and scores")
                sampled, variance = evaluate_sampling(capture, seed=seed, layers=used, on_layer=advance)
                if report_output:
                    advance = stage("comparing densities and sizes")
                    sweeps = sweep(capture, budget, best_socket(rows), seed=seed, layers=used, on_layer=advance)
            except (BrokenProcessPool, KeyboardInterrupt) as stop:
                stopped, code = ending(stop)
    with plain_messages(), finishing():
        record = {
            "schema": SCHEMA,
            "seed": seed,
            "model": click.format_filename(qkv.name if qkv else Path(name).name),
            **hashes,
            "context": capture.k.shape[2],
            "layers": used,
            "positions": capture.positions.tolist(),
            "sink": sink,
            "window": window,
            "commit": click.format_filename(commit) if commit else source_commit(),
            "versions": versions(),
            "rows": _plain(rows),
            "sampled_rows": _plain(sampled),
            "variance_curves": _plain(variance),
            **{name: _plain(part) for name, part in sweeps.items()},
            **({"stopped": True} if stopped else {}),
        }

    def page() -> str:
        from socket_theory.report.attention_page import attention_report

        return attention_report(record, command=repeating_command(click_context, "commit"))

    def show(console: Console) -> None:
        print_tables(rows, sampled, variance, console)

    files = [(json_output, lambda: json_text(record)), (None if stopped else report_output, page)]
    with plain_messages(), finishing():
        delivered = deliver(files, show, PIPED_WIDTH)
    if stopped:
        unfinished = "comparing densities and sizes" if sampled else "sampling values and scores"
        hint = f" {FEWER_WORKERS}" if code == 1 else ""
        say(f"{stopped} while {unfinished}: what came before it is kept, and a report was not made.{hint}")
    click_context.exit(code or int(not delivered))


def _parse_layers(given: str | None) -> list[int] | None:
    try:
        return None if given is None else sorted({int(layer) for layer in given.split(",")})
    except ValueError:
        raise click.UsageError(f"--layers {given!r} is not a list of layers: pass integers such as 0,14,29.") from None


def _plain(results: Sequence[Any]) -> list[dict[str, Any]]:
    """Results as JSON has them; `forced_only` is a mark, which rows bear that need it."""
    return [
        {name: part for name, part in asdict(result).items() if (name, part) != ("forced_only", 0)}
        for result in results
    ]


def _capture(
    model: str, text: Path | None, context: int, layers: list[int] | None, start: Start
) -> tuple[Capture, dict[str, str | None]]:
    weights = find_weights(model)
    if layers is not None:
        require_layers(layers, attention_layers(weights))
    words = read_text(text) if text else default_text()
    advance = start(f"reading {context} tokens through the model, or from the cache", None)
    capture = capture_text(weights, words, context=context, count=POSITIONS, on_layer=advance)
    text_sha256 = hashlib.sha256(words.encode()).hexdigest()
    return capture, {"model_sha256": weights_sha256(weights), "text_sha256": text_sha256}
