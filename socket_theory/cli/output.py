"""`--json FILE` and `--report FILE` of every command: tried before the run, written whole or not at all after it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from socket_theory.core.files import partial_name, replacing

_DESCRIPTORS = {"-": 1, "/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_NUMBERED = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")


@dataclass(frozen=True)
class Output:
    """A file that was asked for: `given` as typed; `descriptor` where that names an open one of this process."""

    given: str
    descriptor: int | None = None

    @classmethod
    def of(cls, given: str) -> Output:
        numbered = _NUMBERED.fullmatch(given)
        return cls(given, int(numbered[1]) if numbered else _DESCRIPTORS.get(given))

    def __str__(self) -> str:
        return click.format_filename(self.given)

    @property
    def is_standard_output(self) -> bool:
        return self.descriptor == 1

    @property
    def target(self) -> Path:
        """Where links lead to."""
        return Path(os.path.realpath(self.given))

    def conflicts(self, other: Output) -> bool:
        """Whether one would overwrite the other, or run into it."""
        if self.is_standard_output or other.is_standard_output:
            return self.is_standard_output and other.is_standard_output
        return self.target == other.target and not _takes_bytes(self.target)

    def require_writable(self) -> None:
        """Raises OSError where the output could not be written after the run; nothing is made, emptied or left."""
        if self.descriptor is not None:
            access = fcntl.fcntl(self.descriptor, fcntl.F_GETFL) & os.O_ACCMODE
            _require(access != os.O_RDONLY, f"{str(self)!r} is open for reading only.")
            return
        _require(bool(self.given), "an empty name was given: pass the name of a file, or - for the standard output.")
        target = self.target
        if target.is_dir() or self.given.endswith(os.sep):
            raise OSError(f"{str(self)!r} is a directory: pass the name of a file in it.")
        if not target.parent.is_dir():
            folder = click.format_filename(target.parent)
            raise OSError(f"{str(self)!r} was given and {folder!r} is no directory: make it first.")
        if _takes_bytes(target):
            _require(os.access(target, os.W_OK), f"{str(self)!r} may not be written to.")
            return
        if target.exists():
            _require(target.is_file(), f"{str(self)!r} is neither a file nor a pipe: pass the name of a file.")
            with target.open("ab"):
                pass
        partial = partial_name(target)
        with partial.open("xb"):
            pass
        partial.unlink()

    def write(self, content: bytes) -> None:
        """Put `content` there: a file is replaced as a whole, a pipe or a device gets the bytes."""
        if self.is_standard_output:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        elif self.descriptor is not None:
            with open(os.dup(self.descriptor), "wb") as file:
                file.write(content)
        elif _takes_bytes(self.target):
            with open(_opened(self.target), "wb") as file:
                file.write(content)
        else:
            with replacing(self.target) as file:
                file.write(content)


class OutputFile(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """An option's value as an Output. What cannot be written is a usage error, so nothing is run for it."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Output:
        if isinstance(value, Output):
            return value
        output = Output.of(os.fsdecode(value))
        try:
            output.require_writable()
        except OSError as error:
            self.fail(str(error) if error.errno is None else f"{str(output)!r} cannot be written: {error.strerror}.")
        others = ctx.params.items() if ctx else ()
        for name, other in others:
            if isinstance(other, Output) and name != (param and param.name) and output.conflicts(other):
                self.fail(f"{str(output)!r} is the place of another output already: pass two different ones.")
        return output

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


json_option = click.option(
    "json_output",
    "--json",
    type=OutputFile(),
    metavar="FILE",
    help="Also write the results as JSON; with - to the standard output, and all else to the error output.",
)
report_option = click.option(
    "report_output",
    "--report",
    type=OutputFile(),
    metavar="FILE",
    help="Also write a report: one HTML file that needs no other file and no network.",
)


def json_text(record: dict[str, Any]) -> str:
    """A record as `--json` writes it."""
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def _takes_bytes(target: Path) -> bool:
    """Whether it is a pipe or a device such as /dev/null, which is written to and never replaced."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _opened(pipe: Path) -> int:
    """A descriptor of a pipe or device for writing. OSError where nobody reads a pipe, which would wait for ever."""
    try:
        descriptor = os.open(pipe, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise OSError("nobody reads this pipe") if error.errno == errno.ENXIO else error from None
    os.set_blocking(descriptor, True)
    return descriptor


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise OSError(sentence)
