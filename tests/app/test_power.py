"""What the checks can see: a bound scaled too small, or a term left out, fails the claim that states it."""

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from socket_theory.bounds.large_deviations import TiltedLaw
from socket_theory.bounds.recall import KeyScores
from socket_theory.claims.registry import run_by_id
from socket_theory.core.rng import Key
from socket_theory.santa.samplers import iid_counts, stratified_counts, systematic_counts
from socket_theory.santa.tiles import flash_budgets, floor_one_budgets

BOUNDS, CLAIMS, ROOT_HALF = "socket_theory.bounds.", "socket_theory.socket_lsh.claims.", 0.5**0.5
SANTA, RACE = "socket_theory.santa.claims.", "socket_theory.race.claims."
SCALED_RADII = [
    ("S8.hoeffding", CLAIMS + "concentration", "hoeffding_radius", ROOT_HALF),
    ("S8.bernstein", CLAIMS + "concentration", "bernstein_radius", ROOT_HALF),
    ("S8.two-point", CLAIMS + "concentration", "two_point_radius", ROOT_HALF),
    ("S9.hoeffding", CLAIMS + "ratio", "hoeffding_ratio_radius", 0.13),
    ("S9.plug-in", CLAIMS + "ratio", "plug_in_radius", 0.6),
    ("S9.empirical-bernstein", CLAIMS + "ratio", "empirical_bernstein_radius", 0.33),
    ("S9.bernstein", CLAIMS + "table_moments", "bernstein_ratio_radius", 0.55),
    ("S9.chebyshev", CLAIMS + "table_moments", "chebyshev_radius", 0.6),
    ("S9.fourth-moment", CLAIMS + "table_moments", "fourth_moment_radius", 0.7),
    ("S9.variance", CLAIMS + "table_variance", "variance_radius", 0.75),
    ("S9.spare-sets", CLAIMS + "spare_sets", "spare_set_radius", 0.75),
    ("S10.hoeffding", BOUNDS + "importance", "hoeffding_radius", ROOT_HALF),
    ("S10.bernstein", BOUNDS + "importance", "bernstein_radius", ROOT_HALF),
    ("N5.koksma", SANTA + "variance", "koksma_radius", 0.9),
    ("N8.bound", SANTA + "budgets", "rounded_mass", 0.9),
    ("N8.bound", SANTA + "budgets", "rounded_mass_bound", 0.9),
    ("N13.draws", BOUNDS + "importance", "bernstein_radius", 0.5),
    ("S15.tables", CLAIMS + "temperature", "signal_to_noise", 0.9),
    ("S15.tables", CLAIMS + "temperature", "signal_to_noise", 1.1),
    ("R4.hoeffding", RACE + "entries", "hoeffding_entry_radius", ROOT_HALF),
    ("R4.bernstein", RACE + "entries", "bernstein_entry_radius", ROOT_HALF),
    ("R3.bias", RACE + "moments", "uniform_kernel_bias_bound", 0.9),
    ("R3.bias", RACE + "moments", "kernel_bias_bound", 0.99),
    ("R3.first-order", RACE + "moments", "first_order_bit_bias", 1.02),
    ("R5.hoeffding", RACE + "ratio", "hoeffding_ratio_radius", 0.12),
    ("R5.plug-in", RACE + "ratio", "plug_in_radius", 0.55),
    ("R5.empirical-bernstein", RACE + "ratio", "empirical_bernstein_radius", 0.25),
    ("R5.bernstein", RACE + "ratio", "bernstein_ratio_radius", 0.5),
    ("R5.chebyshev", RACE + "ratio", "chebyshev_radius", 0.5),
    ("R5.fourth-moment", RACE + "ratio", "fourth_moment_radius", 0.7),
    ("R5.paper", RACE + "ratio", "paper_row_radius", 0.9),
    ("R6.union", RACE + "causal", "causal_fourth_moment_radius", 0.4),
    ("R6.sharper", RACE + "causal", "entrywise_radius", 0.75),
    ("R10", RACE + "beta", "optimal_beta", 1.3),
    ("R10", RACE + "beta", "optimal_beta", 0.7),
    ("R10", RACE + "beta", "mean_square_error", 0.6),
]
RAISED_PROMISES = [
    ("S14.hoeffding", CLAIMS + "ranking", "misrank_hoeffding", 2.0),
    ("S14.range", CLAIMS + "ranking", "misrank_hoeffding_range", 2.0),
    ("S14.bernstein", CLAIMS + "ranking", "misrank_bernstein", 2.0),
    ("N13.two-points", SANTA + "two_points", "sampling_failure", 1.3),
    ("N13.two-points", SANTA + "two_points", "bennett_failure", 1.3),
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
@pytest.mark.parametrize(("claim_id", "module", "name", "power"), RAISED_PROMISES)
def test_a_larger_exponent_of_a_tail_bound_is_refuted(
    monkeypatch: pytest.MonkeyPatch, claim_id: str, module: str, name: str, power: float
) -> None:
    change(monkeypatch, module, name, lambda promise: promise**power)
    assert refuted(claim_id)


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("claim_id", "module", "name", "share"),
    [("S9.normaliser", "ratio", "paper_condition_tables", 0.35)],
)
def test_too_few_tables_are_refuted(
    monkeypatch: pytest.MonkeyPatch, claim_id: str, module: str, name: str, share: float
) -> None:
    change(monkeypatch, CLAIMS + module, name, lambda tables: round(share * tables))
    assert refuted(claim_id)


@pytest.mark.statistical
def test_too_few_tables_for_a_recall_are_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    right = KeyScores.recall_tables
    monkeypatch.setattr(KeyScores, "recall_tables", lambda *given: round(0.4 * right(*given)))
    assert refuted("S14.recall")


@pytest.mark.statistical
def test_a_larger_exponent_of_a_corrected_chernoff_bound_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    right = TiltedLaw.bahadur_rao
    monkeypatch.setattr(TiltedLaw, "bahadur_rao", lambda *given: right(*given) ** 2)
    assert refuted("S14.large-deviations")


@pytest.mark.statistical
@pytest.mark.parametrize("part", ["variance", "radius"])
@pytest.mark.parametrize(
    ("claim_id", "module", "name"),
    [
        ("N13.two-points", "two_points", "plain_spread"),
        *(("N13.draws", "tails", name) for name in ("stratified_spread", "flash_spread", "prop_spread")),
    ],
)
def test_a_spread_of_which_one_part_is_too_small_is_refuted(
    monkeypatch: pytest.MonkeyPatch, claim_id: str, module: str, name: str, part: str
) -> None:
    change(monkeypatch, SANTA + module, name, lambda spread: replace(spread, **{part: 0.7 * getattr(spread, part)}))
    assert refuted(claim_id)


def _offset_shrunk(weights: Any, samples: int, offset: Any, tile_len: int | None) -> Any:
    return systematic_counts(weights, samples, 0.999 * offset, tile_len)


def _one_more_draw_a_tile(masses: Any, samples: int) -> Any:
    return floor_one_budgets(masses, samples) + 1


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("claim_id", "name", "drawn"),
    [
        ("N3", "iid_counts", stratified_counts),
        ("N4.closed-form", "stratified_counts", iid_counts),
        ("N6.rows", "stratified_counts", iid_counts),
        ("N1", "systematic_counts", _offset_shrunk),
        ("N7.covariance", "flash_budgets", lambda tiles, samples: 2 * flash_budgets(tiles, samples)),
        ("N7.covariance", "floor_one_budgets", _one_more_draw_a_tile),
        ("N8.bias", "largest_remainder", floor_one_budgets),
    ],
)
def test_an_estimator_that_draws_by_another_law_is_refuted(
    monkeypatch: pytest.MonkeyPatch, claim_id: str, name: str, drawn: Callable[..., Any]
) -> None:
    monkeypatch.setattr(f"socket_theory.santa.estimator.{name}", drawn)
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


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("claim_id", "module", "name"),
    [
        ("N3", "variance", "iid_covariance"),
        ("N7.covariance", "tiles", "tiled_covariance"),
        ("N8.bias", "budgets", "prop_bias"),
        ("N11.covariance", "scores", "score_covariance"),
        ("N12.second-order", "softmax", "softmax_bias"),
        ("N12.composition", "composition", "systematic_covariance"),
        ("N14.union", "rows", "group_reads"),
    ],
)
def test_a_moment_scaled_by_a_twentieth_is_refuted(
    monkeypatch: pytest.MonkeyPatch, claim_id: str, module: str, name: str
) -> None:
    change(monkeypatch, SANTA + module, name, lambda moment: 0.95 * moment)
    assert refuted(claim_id)
