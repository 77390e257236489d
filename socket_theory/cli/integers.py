"""Options that take integers with commas between them."""

from __future__ import annotations

import click


def integers(context: click.Context, parameter: click.Parameter, given: str) -> list[int]:
    """The integers of an option in ascending order, each once."""
    try:
        return sorted({int(number) for number in given.split(",")})
    except ValueError:
        raise click.BadParameter(f"{given!r} is not a list of integers: pass some such as 4,16,64.") from None
