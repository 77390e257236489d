"""Sphinx configuration. Pages need nothing from the network, neither to be built nor to be read."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

import socket_theory

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "socket-theory"
author = "The socket-theory contributors"
project_copyright = author
version = release = socket_theory.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "numpydoc",
    "mathml",
    "claims_pages",
    "attention_table",
    "decode_table",
    "learning_table",
    "race_table",
    "ranking_table",
    "santa_table",
    "settings_table",
    "rows_table",
    "tightness_table",
]
exclude_patterns = ["_build", "guide/generated", "benchmarks/generated", "theory/generated"]
nitpicky = True
default_role = "code"

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"socket-theory {release}"
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"
numpydoc_show_class_members = False


def _escape(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """In our docstrings |x| is a magnitude and sigma_ a symbol, neither of them a docutils reference."""
    lines[:] = [re.sub(r"\||(?<=\w)_(?!\w)", r"\\\g<0>", line) for line in lines]


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", _escape, priority=0)
