"""How commands fail: one plain sentence and an exit code, never a traceback for what a user can mend."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import click

INTERRUPTED = 130


def quiet_cleanup() -> None:
    """Keep joblib's own warnings out of an interrupt's message; call it before workers start.

    Its resource tracker, a process of its own, deletes what an interrupted run left and warns of what is gone already.
    """
    given = os.environ.get("PYTHONWARNINGS", "").split(",")
    wanted = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = ",".join([*filter(None, given), *([] if wanted in given else [wanted])])


def _say(message: Warning | str, *_: object, **__: object) -> None:
    click.echo(f"Warning: {message}", err=True)


@contextmanager
def plain_messages() -> Iterator[None]:
    """Sentences of this library become the command's error (exit code 1) or a line of warning; Ctrl-C leaves one line
    and exit code 130."""
    quiet_cleanup()
    try:
        with warnings.catch_warnings():
            # Told and never raised, whatever filters were set: a warning must not end a run.
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _say
            yield
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("Interrupted: nothing unfinished was kept.", err=True)
        raise SystemExit(INTERRUPTED) from None
