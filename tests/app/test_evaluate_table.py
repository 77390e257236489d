"""The real-attention page: its tables and plot show the recorded run, and what it says in words holds in that run."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
Row = dict[str, Any]


@pytest.fixture(scope="module")
def page(docs_extension: Callable[[str], ModuleType]) -> ModuleType:
    return docs_extension("attention_table")


@pytest.fixture(scope="module")
def run() -> Row:
    recorded: Row = json.loads((DOCS / "benchmarks" / "attention-smollm2.json").read_text())
    return recorded


def santa(run: Row, sampler: str) -> list[Row]:
    return [row for row in run["sampled_rows"] if row["method"] == "santa" and row["settings"]["sampler"] == sampler]


def errors(rows: list[Row]) -> list[float]:
    return [row["relative_error_mean"] for row in rows]


def scores(run: Row, query_sampler: str, shared: bool = False) -> list[Row]:
    return [
        row
        for row in run["sampled_rows"]
        if row["method"] == "bernoulli"
        and (row["settings"]["query_sampler"], row["settings"]["shared_query"]) == (query_sampler, shared)
    ]


def test_every_row_of_the_run_is_in_a_table(page: ModuleType, run: Row) -> None:
    parts = page.fragments(run)
    tables = {"attention": run["rows"], "sampled": run["sampled_rows"], "variance": run["variance_curves"]}
    for name, rows in tables.items():
        lines = [line for line in parts[name].splitlines() if line.startswith("| ")]
        assert len(lines) == len(rows) + 2
        assert len({line.count("|") for line in lines}) == 1
        for line, row in zip(lines[2:], rows, strict=True):
            assert f"| {row.get('method', row.get('sampler'))} |" in line
            figure = row.get("relative_error_mean")
            shown = f"| {figure:.3f} |" if figure is not None else f"| {page.slope(row['slope'])}\u00a0±"
            assert shown in line


def test_the_plot_has_a_line_with_its_slope_for_each_sampler(page: ModuleType, run: Row) -> None:
    svg = re.search(r"<svg.*</svg>", page.fragments(run)["variance"], flags=re.DOTALL)
    assert svg is not None
    words = " ".join("".join(node.itertext()) for node in ET.fromstring(svg[0]).iter() if node.tag.endswith("text"))
    for curve in run["variance_curves"]:
        assert f"{curve['sampler']}, slope {page.slope(curve['slope'])}" in words


def test_the_page_says_of_sampled_values_what_the_run_shows(run: Row) -> None:
    iid, stratified, systematic, flash, prop = (
        santa(run, name) for name in ("iid", "stratified", "phase_carried", "flash", "biased_prop")
    )
    assert all(0.5 < row["bytes_share"] < 0.54 for row in systematic)
    assert errors(systematic)[0] / errors(systematic)[-1] > 9.5
    for own, strata, independent in zip(errors(systematic), errors(stratified), errors(iid), strict=True):
        assert 0.9 * strata < own < strata < independent
    ratios = [one / other for one, other in zip(errors(iid), errors(systematic), strict=True)]
    assert ratios == sorted(ratios)
    for budget, independent in zip(flash, iid, strict=True):
        assert budget["relative_error_mean"] > independent["relative_error_mean"]
        assert budget["rows_per_kv_head"] > independent["rows_per_kv_head"]
    for rounded, own in zip(prop, systematic, strict=True):
        assert rounded["relative_error_mean"] == pytest.approx(
            own["relative_error_mean"], abs=2 * own["standard_error"]
        )
    assert prop[0]["relative_bias"] / prop[-1]["relative_bias"] > errors(prop)[0] / errors(prop)[-1]


def test_the_page_says_of_sampled_scores_what_the_run_shows(run: Row) -> None:
    few, some, many = scores(run, "stratified")
    hard = next(row["relative_error_mean"] for row in run["rows"] if row["method"] == "hard_lsh")
    socket = sorted(errors([row for row in run["rows"] if row["method"] == "socket"]))
    assert socket[4] < some["relative_error_mean"] < hard
    assert many["relative_error_mean"] < socket[0]
    assert all(
        kind[1]["key_share"] > 0.9 for kind in (scores(run, "stratified"), scores(run, "stratified", shared=True))
    )
    for kind in (scores(run, "iid"), scores(run, "stratified"), scores(run, "stratified", shared=True)):
        assert kind[0]["key_share"] < 0.8
        assert kind[0]["relative_error_mean"] > 0.5
    both = [row for row in run["sampled_rows"] if row["method"] == "bernoulli_santa"]
    assert min(errors(both)) > some["relative_error_mean"]
    assert few["relative_error_mean"] > some["relative_error_mean"]


def test_the_page_says_of_the_slopes_what_the_run_shows(page: ModuleType, run: Row) -> None:
    iid, stratified, systematic = run["variance_curves"]
    assert (iid["slope"], iid["slope_of_mean"]) == pytest.approx((-1, -1))
    assert systematic["slope"] < stratified["slope"] < -1
    assert systematic["slope_of_mean"] < stratified["slope_of_mean"] < -1
    for curve in (stratified, systematic):
        assert curve["slope_of_mean"] == pytest.approx(page.PAPER_SLOPES[curve["sampler"]], abs=0.03)
        assert curve["slope"] < curve["slope_of_mean"]
        assert curve["slope_p90"] - curve["slope_p10"] < 0.3


def test_rows_without_a_choice_are_named_below_the_table(page: ModuleType, run: Row) -> None:
    assert "no score decides" not in page.selections_table(run)
    marked = run | {"rows": [row | {"forced_only": 0.5} if row["method"] == "window" else row for row in run["rows"]]}
    assert page.selections_table(marked).endswith("these methods keep the same tokens: window.\n\n")
