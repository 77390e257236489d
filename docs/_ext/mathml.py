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
# What browsers space differently from TeX: functions stick to their neighbours, bars have wide gaps and grow with the
# whole row (those of \left and \right stand at the ends of an mrow and may), an accent touches its letter, and a tall
# display gets a scroll bar.
FUNCTION = re.compile(r"(</m(?:i|n|sub|sup)>\s*)(?=<mi[^>]*>\w+</mi>\s*<mo>&ApplyFunction;)")
ARGUMENT = re.compile(r"<mo>&ApplyFunction;</mo>(?=\s*<m(?!o|row))")
BAR = re.compile(r"(<mrow>\s*)?<mo(?: [^>]*)?>([|‖])</mo>(\s*</mrow>)?")
THIN_SPACE = '<mspace width="0.17em"></mspace>'
STYLES = (
    ('<mover accent="true">', '<mover accent="false">'),
    (' display="block"', ' display="block" style="padding: 0.3em 0"'),
)


def _bar(found: re.Match[str]) -> str:
    left, bar, right = (part or "" for part in found.groups())
    grows = "" if left or right else ' stretchy="false"'
    return f'{left}<mo lspace="0" rspace="0"{grows}>{bar}</mo>{right}'


def _space(formula: str) -> str:
    formula = ARGUMENT.sub(THIN_SPACE, FUNCTION.sub(rf"\1{THIN_SPACE}", formula))
    for found, better in STYLES:
        formula = formula.replace(found, better)
    return BAR.sub(_bar, formula)


def _render(translator: HTML5Translator, node: nodes.math | nodes.math_block, block: bool) -> None:
    if MISREAD.search(node.astext()):
        LOGGER.warning(r"formula %r: write \bar w{}_i and \frac{1}{2}", node.astext(), location=node)
    try:
        translator.body.append(_space(tex2mathml(node.astext(), as_block=block)))
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
