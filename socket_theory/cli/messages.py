"""How commands fail: one plain sentence and an exit code, never a traceback for what a user can mend."""

from __future__ import annotations

import os
import re
import signal
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import click

from socket_theory.cli.deliver import say

FEWER_WORKERS = "LOKY_MAX_CPU_COUNT=1 in the environment runs one worker at a time."


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP end what runs within as Ctrl-C does: by Stopped. A signal that was ignored stays ignored.

    After the first one all are ignored until the process ends: a second must not interrupt the writing of results.
    """
    stopped = False

    def stop(number: int, _: Any) -> None:
        nonlocal stopped
        stopped = True
        for each in replaced:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    usual = (signal.SIG_DFL, signal.default_int_handler)
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    replaced = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) in usual}
    for number in replaced:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, signal.SIG_IGN if stopped else handler)


@contextmanager
def finishing() -> Iterator[None]:
    """Signals that would end the command are ignored: what was found is being written and printed."""
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    replaced = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


def ending(stop: BrokenProcessPool | KeyboardInterrupt) -> tuple[str, int]:
    """What stopped a run, and the exit code: 1 after a killed worker, else 128 and the number of the signal."""
    if isinstance(stop, BrokenProcessPool):
        return "A worker process was killed, most likely because the memory ran out", 1
    return "Interrupted", stop.exit_code if isinstance(stop, Stopped) else 128 + signal.SIGINT


def quiet_cleanup() -> None:
    """Keep joblib's own warnings out of an interrupt's message; call it before workers start.

    Its resource tracker, a process of its own, deletes what an interrupted run left and warns of what is gone already.
    """
    given = os.environ.get("PYTHONWARNINGS", "").split(",")
    wanted = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = ",".join([*filter(None, given), *([] if wanted in given else [wanted])])


@contextmanager
def plain_messages(**options: str) -> Iterator[None]:
    """Sentences of this library become the command's error or a line of warning, a signal one line and the exit code
    128 + its number.

    Where a sentence names an argument that came from an option, the option is named in its place and the exit code is 2
    instead of 1. `options` gives the option of an argument whose name is not the parameter's: fraction="--density".
    """
    quiet_cleanup()
    try:
        with stoppable(), warnings.catch_warnings():
            # Told and never raised, whatever filters were set: a warning must not end a run.
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = lambda message, *_, **__: say(f"Warning: {_with_options(str(message), options)}")
            yield
    except (ValueError, TypeError, ImportError, OSError) as error:
        sentence = _with_options(str(error), options)
        raise (click.ClickException if sentence == str(error) else click.UsageError)(sentence) from error
    except MemoryError as error:
        raise click.ClickException(f"the memory ran out. {error}".strip()) from error
    except (BrokenProcessPool, KeyboardInterrupt) as stop:
        what, code = ending(stop)
        hint = f" {FEWER_WORKERS}" if code == 1 else ""
        say(f"{what}: no results were kept.{hint}")
        raise SystemExit(code) from None


def _with_options(sentence: str, options: dict[str, str]) -> str:
    """`layers=[0, 5] were given` as `--layers 0,5 were given`."""
    context = click.get_current_context(silent=True)
    own = context.command.params if context else []
    names = {str(option.name): option.opts[0] for option in own if isinstance(option, click.Option)} | options

    def renamed(found: re.Match[str]) -> str:
        return f"{names[found[1]]} {(found[2] or '').strip('[]').replace(' ', '')}"

    return re.sub(rf"\b({'|'.join(map(re.escape, names))})=(\[[-\d, ]*\])?", renamed, sentence) if names else sentence
