"""`--report FILE`, refused before a long run where it could not be written after it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click
from click.core import ParameterSource

from socket_theory.files import replacing


def _require_writable(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    if path is None:
        return None
    folder = path.resolve().parent
    if path.is_dir():
        raise click.BadParameter(f"{str(path)!r} is a directory: pass the name of a file in it.")
    if not folder.is_dir():
        raise click.BadParameter(f"{str(path)!r} was given and {str(path.parent)!r} is no directory: make it first.")
    if not os.access(folder, os.W_OK):
        raise click.BadParameter(f"{str(path)!r} was given and {str(path.parent)!r} may not be written to.")
    return path


report_option = click.option(
    "report_path",
    "--report",
    type=click.Path(path_type=Path),
    callback=_require_writable,
    metavar="FILE",
    help="Also write a report: one HTML file that needs no other file and no network.",
)


def write_report(path: Path, text: str) -> None:
    """Write a page, whole or not at all, and say where it is on the error output."""
    with replacing(path) as file:
        file.write(text.encode())
    click.echo(f"Report: {path}", err=True)


def repeating_command(context: click.Context, *outputs: str) -> str:
    """The command line that was given, less the parameters named in `outputs`, ending in a report."""
    names: list[str] = []
    node: click.Context | None = context
    while node is not None and node.parent is not None:
        names.insert(0, str(node.info_name))
        node = node.parent
    words = ["socket-theory", *names]
    for parameter in context.command.params:
        name = str(parameter.name)
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in (*outputs, "report_path"):
            value = context.params[name]
            for each in value if parameter.multiple else [value]:
                words += [parameter.opts[0], str(each)]
    return shlex.join([*words, "--report", "report.html"])
