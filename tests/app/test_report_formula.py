"""Plain-text formulas in mathematical letters, and numbers a reader can take in."""

from __future__ import annotations

import re

import pytest

from socket_theory.claims.registry import CLAIMS
from socket_theory.core.claim import Claim
from socket_theory.report.formula import number, readable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("E w = mu^P", "E w = μ<sup>P</sup>"),
        ("kappa_tau,i - kappa_0,i", "κ<sub>τ,i</sub> − κ<sub>0,i</sub>"),
        ("y_{tau,L} <= t", "y<sub>τ,L</sub> ≤ t"),
        ("w-bar_i and y-hat", "w̄<sub>i</sub> and ŷ"),
        ("w_i^(l)", "w<sub>i</sub><sup>(l)</sup>"),
        ("SNR^-2", "SNR<sup>−2</sup>"),
        ("[sigma_-, sigma_+], sigma(+-2 h)", "[σ<sub>−</sub>, σ<sub>+</sub>], σ(±2 h)"),
        ("sqrt(2 ln(2/delta)/L) on k and -k", "√(2 ln(2/δ)/L) on k and −k"),
        ("the softmax of <h, c>/tau", "the softmax of ⟨h, c⟩/τ"),
        ("tau -> infinity, P(a < b) & P-1", "τ → ∞, P(a &lt; b) &amp; P−1"),
        ("a pile of same-mean U-statistics", "a pile of same-mean U-statistics"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
    ],
)
def test_formulas_are_typeset_and_words_left_alone(text: str, shown: str) -> None:
    assert str(readable(text)) == shown


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_no_claim_is_left_with_plain_text_notation(claim: Claim) -> None:
    shown = readable(claim.statement) + readable(claim.wrong) + readable(claim.source)
    assert not re.search(r"[_^]|&lt;=|&gt;=|-&gt;|\b(tau|kappa|sigma|theta|delta|mu|sqrt)\b|-bar|-hat", shown)
    assert shown.count("<su") == shown.count("</su")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "∞"),
        (0.0, "0"),
        (0.05442, "0.0544"),
        (1412.0, "1410"),
        (-2.5, "−2.5"),
        (1e-12, "10⁻¹²"),
        (7.93e-16, "7.93 × 10⁻¹⁶"),
        (9.04e13, "9.04 × 10¹³"),
    ],
)
def test_numbers_have_three_digits(value: float | None, shown: str) -> None:
    assert number(value) == shown
