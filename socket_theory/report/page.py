"""Templates to text. Everything that is put into one is escaped unless it is markup already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from socket_theory.report.formula import number, readable

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """The page of `templates/<template>`. Raises jinja2.UndefinedError for a value that a template needs and lacks."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "readable": readable}
    return environment.get_template(template).render(**values)
