"""The table of steps over rows of other owners, made from the committed results."""

import json
from pathlib import Path

import pytest

from socket_gpu.bench.layouts import LAYOUTS

ROOT = Path(__file__).parents[2]
SHAPE = {"batch": 1, "num_qo_heads": 32, "num_kv_heads": 8, "kv_len": 131072}


@pytest.fixture
def page(docs_extension):
    return docs_extension("rows_table")


def run(times):
    """A record of steps over each layout, and one step of other settings."""
    rows = [{"settings": {"seed": 0} | ({} if n == 0 else {"rows": LAYOUTS[n]}), "us": t} for n, t in enumerate(times)]
    rows.insert(0, {"settings": {"seed": 1}, "us": 7.0})
    return {"rows": [row | SHAPE | {"us_quartiles": [row["us"] - 1, row["us"] + 1]} for row in rows]}


def test_each_layout_stands_beside_own_arrays(page):
    decode, santa = run([100, 100, 101, 103, 110, 90]), run([50.0] * 6)
    lines = page.rows_table(decode, santa).strip().splitlines()[2:]
    assert [line.split(" | ")[0].strip("| ") for line in lines] == list(LAYOUTS)
    assert lines[4].split(" | ")[1:3] == ["110.0 (109.0-111.0)", "+10.0 %"]
    assert lines[5].split(" | ")[2] == "-10.0 %"


def test_the_committed_results_hold_the_bars(page):
    for name in (page.DECODE, page.SANTA):
        record = json.loads((ROOT / "docs" / "benchmarks" / name).read_text())
        own, paged = (page._measured(record, layout)["us"] for layout in ("own", "pages of 16"))
        assert paged <= 1.1 * own
