"""How commands fail: one plain sentence and an exit code, never a traceback for what a user can mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

INTERRUPTED = 130


@contextmanager
def plain_messages() -> Iterator[None]:
    """Sentences of this library become the command's error (exit code 1); Ctrl-C leaves one line and exit code 130."""
    try:
        yield
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("Interrupted: nothing unfinished was kept.", err=True)
        raise SystemExit(INTERRUPTED) from None
