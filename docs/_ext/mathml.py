"""Formulas as MathML, written at build time by docutils: pages need no script, no network and no LaTeX."""

from __future__ import annotations

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

LOGGER = logging.getLogger(__name__)
# What docutils reads differently from TeX, without a word: a script on an accent, and a fraction of bare digits.
MISREAD = re.compile(r"\\(bar|hat|tilde|dot|vec)\s*(\w|\{[^{}]*\})[_^]|frac\s*\d\d")


def _render(translator: HTML5Translator, node: nodes.math | nodes.math_block, block: bool) -> None:
    if MISREAD.search(node.astext()):
        LOGGER.warning(r"formula %r: write \bar w{}_i and \frac{1}{2}", node.astext(), location=node)
    try:
        translator.body.append(tex2mathml(node.astext(), as_block=block))
    except MathError as error:
        LOGGER.warning("formula %r: %s", node.astext(), error, location=node)
    raise nodes.SkipNode


def visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    _render(translator, node, block=False)


def visit_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    _render(translator, node, block=True)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", inline_renderers=(visit_inline, None), block_renderers=(visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
