"""Error and speed in one table: README's is that of the committed results, and a row is one configuration's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def page(docs_extension):
    return docs_extension("settings_table")


def test_the_readme_has_the_table_of_the_committed_results(page):
    assert page.committed_table(ROOT / "docs").strip() in (ROOT / "README.md").read_text()


def test_errors_and_times_are_measured_under_one_budget(page):
    folder = ROOT / "docs" / "benchmarks"
    attention, speed = (json.loads((folder / name).read_text()) for name in (page.ATTENTION, page.SPEED))
    ours = [row for row in speed["rows"] if row["method"] == "socket"]
    assert {(row["settings"]["sink"], row["settings"]["window"]) for row in ours} == {
        (attention["sink"], attention["window"])
    }
    assert all(row["kept_tokens"] == round(0.05 * row["kv_len"]) for row in ours)
    assert all(
        row["density"] == pytest.approx(0.05, abs=2e-4) for row in attention["rows"] if row["method"] == "socket"
    )


def test_each_setting_has_its_own_error_and_time(page):
    settings = {"query_map": "tanh_scaled", "num_planes": 10, "num_tables": 60, "center_keys": False}
    attention, rows = [], []
    for place, (temperature, weight) in enumerate([(0.4, True), (0.4, False), (1.0, False)]):
        own = settings | {"temperature": temperature, "value_weight": weight}
        attention.append({"method": "socket", "settings": own, "relative_error_mean": 0.3 - place / 10})
        for batch, num_qo_heads, num_kv_heads, kv_len in page.CASES:
            case = {"batch": batch, "num_qo_heads": num_qo_heads, "num_kv_heads": num_kv_heads, "kv_len": kv_len}
            timed = case | {"head_dim": 128, "us": 50.0 + place, "ratio_to_best_dense": 2.0 - place / 10}
            rows.append(timed | {"method": "socket", "settings": own})
            rows.append(timed | {"method": "sdpa_flash", "us": 100.0, "settings": {"call": "HND"}})
    table = page.settings_table({"rows": attention}, {"rows": rows}).splitlines()
    assert table[2] == "| dense attention | 0.000" + 3 * " | 100 | 1.00×" + " |"
    assert [line.split("|")[2:4] for line in table[3:6]] == [
        [" 0.300 ", " 50 "],
        [" 0.200 ", " 51 "],
        [" 0.100 ", " 52 "],
    ]
