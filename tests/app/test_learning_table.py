"""The generated part of the page on learning: the order of the kinds, and which of them the seeds tell apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from socket_theory.evaluate.learning.summary import summaries

RESULTS = Path(__file__).parents[2] / "docs" / "benchmarks" / "learning-h200.json"


@pytest.fixture
def page(docs_extension: Any) -> Any:
    return docs_extension("learning_table")


def run(kind: str, seed: int, last: float) -> dict[str, Any]:
    settings = {"race": {"num_planes": 4, "num_tables": 4}, "angular": {"gamma": 4.0}}.get(kind, {})
    betas = [[2.0], [1.5 + seed / 10]] if kind == "race" else [[], []]
    losses = {"steps": [0, 9], "training": [4.0, last - 0.1], "validation": [4.0, last], "betas": betas}
    return {"kind": kind, "settings": settings, "seed": seed, "seconds_per_step": 0.01, **losses}


def test_kinds_are_told_apart_by_differences_between_runs_of_a_seed(page: Any) -> None:
    finals = {"race": (1.5, 1.6, 1.7), "angular": (1.42, 1.51, 1.61), "softmax": (1.40, 1.53, 1.62)}
    record = {"runs": [run(kind, seed, last) for kind, each in finals.items() for seed, last in enumerate(each)]}
    said = page.order(record)
    assert said.startswith("From the least validation loss on: angular, γ=4 (1.513), then softmax (1.517), then RACE")
    assert said.endswith(" The seeds do not tell apart: angular, γ=4 and softmax.\n\n")
    record["runs"] = [each for each in record["runs"] if each["kind"] != "angular"]
    assert page.order(record).endswith(" The seeds tell all of them apart.\n\n")
    wider = {"runs": [*record["runs"][:2], run("race", 2, 1.80), *record["runs"][3:]]}
    assert page.order(wider).endswith("softmax and RACE, P=4, L=4.\n\n")  # more than 2 standard errors, and 3 seeds
    record["runs"] = [each for each in record["runs"] if each["seed"] == 0]
    assert "seeds" not in page.order(record)


def test_the_table_has_losses_spread_differences_and_betas(page: Any) -> None:
    runs = [run(kind, seed, last + seed / 10) for kind, last in (("race", 1.5), ("softmax", 1.2)) for seed in (0, 1)]
    _, _, race, softmax = page.losses_table({"runs": runs}).strip().splitlines()
    cells = race.replace("\u00a0", " ").strip("| ").split(" | ")
    assert cells == ["RACE, P=4, L=4", "1.550 ± 0.071", "2.236", "1.450", "+0.300 ± 0.000", "1.50 to 1.60", "10.0"]
    assert softmax.split(" | ")[4:6] == ["-", "-"]


def test_the_committed_results_make_a_page(page: Any) -> None:
    record = json.loads(RESULTS.read_text())
    made = page.fragment(record)
    assert made.startswith(f"{record['device']}, ")
    assert f"{record['training']['steps']} steps" in made
    assert {run["kind"] for run in record["runs"]} == {"race", "angular", "softmax"}
    for each in summaries(record):
        assert len(each.final) == 3
        assert f"| {each.name} | {each.mean:.3f}" in made
