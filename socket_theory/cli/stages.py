"""How far a run is: a bar on a terminal, elsewhere a line a stage and every half minute, on the error output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console

from socket_theory.cli.deliver import say

_SILENCE_S = 30
Start = Callable[[str, int | None], Callable[[], None]]


@contextmanager
def stages() -> Iterator[Start]:
    """`start(sentence, total)` begins a stage and gives what to call after each of its steps.

    The bar is gone when the block ends: print results after it.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn())
    terminal = console.is_terminal and not console.is_dumb_terminal

    def start(sentence: str, total: int | None) -> Callable[[], None]:
        if not terminal:
            say(sentence)
        for old in bar.task_ids:
            bar.remove_task(old)
        task, count, told = bar.add_task(sentence, total=total), 0, monotonic()

        def advance() -> None:
            nonlocal count, told
            count += 1
            bar.advance(task)
            if not terminal and total and monotonic() - told > _SILENCE_S:
                say(f"{sentence}: {count} of {total} done")
                told = monotonic()

        return advance

    with Progress(*columns, console=console, transient=True, expand=True, disable=not terminal) as bar:
        yield start
