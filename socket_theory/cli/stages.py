"""How far a run is: a bar on a terminal, a line a stage elsewhere, both on the error output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from socket_theory.cli.deliver import say

Start = Callable[[str, int | None], Callable[[], None]]


@contextmanager
def stages() -> Iterator[Start]:
    """`start(sentence, total)` begins a stage and gives what to call after each of its steps.

    The bar is gone when the block ends: print results after it.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn())
    terminal = console.is_terminal

    def start(sentence: str, total: int | None) -> Callable[[], None]:
        if not terminal:
            say(sentence)
        for old in bar.task_ids:
            bar.remove_task(old)
        task = bar.add_task(sentence, total=total)
        return lambda: bar.advance(task)

    with Progress(*columns, console=console, transient=True, expand=True, disable=not terminal) as bar:
        yield start
