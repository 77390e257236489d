"""The plain-text formulas of the claims in mathematical letters, with sub- and superscripts."""

from __future__ import annotations

import re
import unicodedata

from markupsafe import Markup, escape

_GREEK = {
    "alpha": "α", "beta": "β", "delta": "δ", "eps": "ε", "zeta": "ζ", "theta": "θ", "kappa": "κ", "mu": "μ", "nu": "ν",
    "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "Delta": "Δ", "Phi": "Φ", "Sigma": "Σ",
}  # fmt: skip
_SYMBOLS = (
    (r"\b(\w)-bar(?![a-z])", "\\1\N{COMBINING MACRON}"),
    (r"\b(\w)-hat(?![a-z])", "\\1\N{COMBINING CIRCUMFLEX ACCENT}"),
    (r"<(\w+, \w+)>", r"⟨\1⟩"),
    (r"<=", "≤"),
    (r">=", "≥"),
    (r"->", "→"),
    (r"\+-", "±"),
    (r"\binfinity\b", "∞"),
    (r"\bsqrt ?", "√"),
    (r"\bsum_", "∑_"),
    *((rf"(?<![A-Za-z]){name}(?![a-z])", letter) for name, letter in _GREEK.items()),
    # A minus, not the hyphen of a word: after a space or an opening sign, or between two single letters.
    (r"(?<=\s)-(?=[\s\w(|])|(?<=[(\[{^_=,])-|(?<=\b\w)-(?=\w\b)", "−"),
)
_SCRIPT = re.compile(r"([_^])(?:\{([^{}]*)\}|(\([^()]*\)|[+−]?\w+(?:,\w)?|[+−±]))")
_EXPONENT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def readable(text: str) -> Markup:
    """`kappa_tau <= mu^P` as κ with a subscript and μ with a superscript; any other text is only escaped."""
    for pattern, symbol in _SYMBOLS:
        text = re.sub(pattern, symbol, text)
    return Markup(_SCRIPT.sub(_script, str(escape(unicodedata.normalize("NFC", text)))))


def _script(found: re.Match[str]) -> str:
    tag = "sub" if found[1] == "_" else "sup"
    return f"<{tag}>{found[2] or found[3]}</{tag}>"


def number(value: float | None) -> str:
    """Three digits, large and small powers of ten as such; a dash where there is no number."""
    if value is None or value != value:
        return "–"
    mantissa, _, exponent = f"{float(f'{value:.3g}'):g}".replace("inf", "∞").partition("e")
    power = f"10{str(int(exponent)).translate(_EXPONENT)}" if exponent else ""
    if power:
        mantissa = {"1": "", "-1": "-"}.get(mantissa, f"{mantissa} × ")
    return f"{mantissa}{power}".replace("-", "−")
