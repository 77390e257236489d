"""The end of every command: files are written, then tables are printed, whatever becomes of the terminal."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from io import StringIO
from typing import IO, Any

import click
from rich.console import Console

from socket_theory.cli.output import Output

Content = Callable[[], str]


def deliver(files: Sequence[tuple[Output | None, Content]], show: Callable[[Console], None], piped_width: int) -> bool:
    """Write each file that was asked for, then print what `show` draws; whether all of it arrived.

    A failure is said in a sentence and keeps nothing else from being written or printed. A reader that has gone, as
    `head` does, is no failure. The tables go to the error output where a file goes to the standard output, and are
    `piped_width` columns wide where there is no terminal.
    """
    delivered = True
    wanted = [(output, content) for output, content in files if output is not None]
    for output, content in wanted:
        try:
            output.write(content().encode(errors="replace"))
            if not output.descriptor:
                say(f"Wrote {output}.")
        except OSError as error:
            stream = sys.stdout if output.is_standard_output else None
            delivered = _excused(error, f"{str(output)!r} could not be written", stream) and delivered
        except Exception as error:
            # Whatever is wrong with the content of one file, the others and the tables are not lost for it.
            say(f"Error: the content of {str(output)!r} could not be made ({type(error).__name__}: {error}).")
            delivered = False
    aside = any(output.is_standard_output for output, _ in wanted)
    return emit(drawn(show, piped_width, aside), aside) and delivered


def drawn(show: Callable[[Console], None], piped_width: int, aside: bool = False) -> str:
    """What `show` prints to a console as wide as the stream's terminal, as text."""
    terminal, text = Console(stderr=aside), StringIO()
    width = terminal.width if terminal.is_terminal else piped_width
    show(Console(file=text, force_terminal=terminal.is_terminal, width=width, highlight=False))
    return text.getvalue()


def emit(text: str, aside: bool = False) -> bool:
    """Print `text`, to the error output where `aside`; characters that the stream lacks become question marks."""
    stream = sys.stderr if aside else sys.stdout
    if stream is None:
        return True
    encoding = stream.encoding or "utf-8"
    try:
        click.echo(text.encode(encoding, "replace").decode(encoding), file=stream, nl=False)
    except OSError as error:
        return _excused(error, "the results could not be printed", stream)
    return True


def say(sentence: str) -> None:
    """A line on the error output, which never ends a run."""
    emit(f"{sentence}\n", aside=True)


class Commands(click.Group):
    """A group whose help, too, ends in a sentence where the standard output cannot be written."""

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().main(*args, **extra)
        except OSError as error:
            _excused(error, "the output could not be printed", sys.stdout)
            raise SystemExit(1) from None


def _excused(error: OSError, what: str, stream: IO[str] | None) -> bool:
    """Say what failed, unless a reader has gone, which is no failure; `stream` goes to nowhere from then on."""
    if stream is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    if error.errno == errno.EPIPE:
        return True
    if stream is None or stream is not sys.stderr:
        say(f"Error: {what}: {error.strerror or error}.")
    return False
