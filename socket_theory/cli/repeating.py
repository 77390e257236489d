"""The command line that repeats a run, as a report shows it."""

from __future__ import annotations

import os
import shlex

import click
from click.core import ParameterSource


def repeating_command(context: click.Context, *left_out: str) -> str:
    """The command line that was given, less the parameters named in `left_out` and the outputs, ending in a report."""
    names: list[str] = []
    node: click.Context | None = context
    while node is not None and node.parent is not None:
        names.insert(0, str(node.info_name))
        node = node.parent
    words = ["socket-theory", *names]
    for parameter in context.command.params:
        name = str(parameter.name)
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name in context.params and name not in (*left_out, "json_output", "report_output"):
            value = context.params[name]
            for each in value if parameter.multiple else [value]:
                words += [parameter.opts[0], str(each)]
    return " ".join(map(_quoted, [*words, "--report", "report.html"]))


def _quoted(word: str) -> str:
    """As a shell reads it; bytes that are not UTF-8 as $'\\xe9'."""
    try:
        word.encode()
    except UnicodeEncodeError:
        kept = {byte: chr(byte) for byte in range(32, 127) if chr(byte) not in "\\'"}
        return "$'" + "".join(kept.get(byte, f"\\x{byte:02x}") for byte in os.fsencode(word)) + "'"
    return shlex.quote(word)
