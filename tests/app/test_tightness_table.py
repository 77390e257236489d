"""The page on tightness, made from the committed results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from socket_theory.evaluate.tightness.settings import SETTINGS

ROOT = Path(__file__).parents[2]
RECORD = json.loads((ROOT / "docs" / "benchmarks" / "tightness.json").read_text())


@pytest.fixture
def page(docs_extension: Any) -> Any:
    return docs_extension("tightness_table")


def test_a_ratio_has_three_digits(page: Any) -> None:
    shown = [page.figure({"tightness": ratio}) for ratio in (None, 1.234, 12.3, 1234.5, 3.2e6)]
    assert shown == ["says nothing", "1.23", "12", "1234", "3.2e+06"]


def test_a_bound_is_a_line_with_a_column_for_each_setting_and_a_reason_where_it_is_loose(page: Any) -> None:
    sharp, loose = ({"claim": "S8.bernstein", "title": name, "form": "f", "family": "SOCKET"} for name in "ab")
    rows = [sharp | {"setting": name, "tightness": 2.0, "reason": None} for name in ("toy", "paper")]
    rows += [loose | {"setting": name, "tightness": 40.0, "reason": "Because."} for name in ("toy", "paper")]
    settings = [{"family": "SOCKET", "name": name, "words": f"a {name}'s"} for name in ("toy", "paper")]
    text = page.family_part({"settings": settings, "rows": rows}, "SOCKET")
    assert "| claim | bound | function | toy | paper |" in text
    assert "| [S8.bernstein](#claim-S8.bernstein) | a | `f` | 2.00 | 2.00 |" in text
    assert text.count("Because.") == 1
    assert "- **S8.bernstein b.** Because." in text


def test_the_committed_results_have_every_bound_at_every_setting() -> None:
    expected = [(s.family, s.name, e.claim, e.title, e.form) for s in SETTINGS for e in s.entries]
    assert [tuple(row[name] for name in ("family", "setting", "claim", "title", "form")) for row in RECORD["rows"]] == (
        expected
    )
    reasons = {entry.reason for setting in SETTINGS for entry in setting.entries}
    assert {row["reason"] for row in RECORD["rows"]} <= reasons | {None}
