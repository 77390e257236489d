"""What the checks can see: a bound scaled too small, or a term left out, fails the claim that states it."""

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from socket_theory.claims.registry import run_by_id
from socket_theory.rng import Key

BOUNDS, CLAIMS, ROOT_HALF = "socket_theory.bounds.", "socket_theory.claims.socket_", 0.5**0.5
SCALED_RADII = [
    ("S8.hoeffding", CLAIMS + "concentration", "hoeffding_radius", ROOT_HALF),
    ("S8.bernstein", CLAIMS + "concentration", "bernstein_radius", ROOT_HALF),
    ("S9.hoeffding", CLAIMS + "finite_tables", "hoeffding_ratio_radius", 0.13),
    ("S9.plug-in", CLAIMS + "finite_tables", "plug_in_radius", 0.3),
    ("S9.empirical-bernstein", CLAIMS + "finite_tables", "empirical_bernstein_radius", 0.33),
    ("S9.bernstein", CLAIMS + "table_moments", "bernstein_ratio_radius", 0.55),
    ("S9.chebyshev", CLAIMS + "table_moments", "chebyshev_radius", 0.6),
    ("S9.fourth-moment", CLAIMS + "table_moments", "fourth_moment_radius", 0.7),
    ("S10.hoeffding", BOUNDS + "sampling", "hoeffding_radius", ROOT_HALF),
    ("S10.bernstein", BOUNDS + "sampling", "bernstein_radius", ROOT_HALF),
    ("S15.tables", CLAIMS + "temperature", "signal_to_noise", 0.9),
    ("S15.tables", CLAIMS + "temperature", "signal_to_noise", 1.1),
]
RAISED_PROMISES = [
    ("S14.hoeffding", "misrank_hoeffding"),
    ("S14.range", "misrank_hoeffding_range"),
    ("S14.bernstein", "misrank_bernstein"),
]


def change(patch: pytest.MonkeyPatch, module: str, name: str, wrong: Callable[[Any], Any]) -> None:
    right = getattr(importlib.import_module(module), name)
    patch.setattr(f"{module}.{name}", lambda *given, **named: wrong(right(*given, **named)))


def refuted(claim_id: str) -> bool:
    result = run_by_id(claim_id, Key.from_seed(0), "quick")
    assert result.error is None
    return result.measurement.rejects


@pytest.mark.statistical
@pytest.mark.parametrize(("claim_id", "module", "name", "factor"), SCALED_RADII)
def test_a_scaled_radius_is_refuted(
    monkeypatch: pytest.MonkeyPatch, claim_id: str, module: str, name: str, factor: float
) -> None:
    change(monkeypatch, module, name, lambda radius: factor * radius)
    assert refuted(claim_id)


@pytest.mark.statistical
@pytest.mark.parametrize(("claim_id", "name"), RAISED_PROMISES)
def test_twice_the_exponent_of_a_misranking_bound_is_refuted(
    monkeypatch: pytest.MonkeyPatch, claim_id: str, name: str
) -> None:
    change(monkeypatch, CLAIMS + "ranking", name, lambda promise: promise**2)
    assert refuted(claim_id)


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("claim_id", "module", "name", "share"),
    [
        ("S9.normaliser", "finite_tables", "paper_condition_tables", 0.35),
        ("S14.recall", "ranking", "recall_tables", 0.4),
    ],
)
def test_too_few_tables_are_refuted(
    monkeypatch: pytest.MonkeyPatch, claim_id: str, module: str, name: str, share: float
) -> None:
    change(monkeypatch, CLAIMS + module, name, lambda tables: round(share * tables))
    assert refuted(claim_id)


ALL_TERMS = ("sampling", "finite_tables", "temperature")


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("claim_id", "term"),
    [
        *((f"S12.{form}", term) for form in ("plug-in", "moment", "hoeffding") for term in ALL_TERMS),
        *(("S12.tables-alone", term) for term in ALL_TERMS[1:]),
    ],
)
def test_every_term_of_the_whole_bound_is_needed(monkeypatch: pytest.MonkeyPatch, claim_id: str, term: str) -> None:
    change(monkeypatch, CLAIMS + "end_to_end", "end_to_end", lambda terms: replace(terms, **{term: 0.0}))
    assert refuted(claim_id)
