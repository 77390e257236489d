"""The decode page: its tables say met or missed, its plots take the page's colours, and it builds without a run."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import pytest

STAGES = {"score": 54.0, "select": 20.0, "attend": 26.0}


@pytest.fixture(scope="module")
def page(docs_extension):
    return docs_extension("decode_table")


def row(method, case, us, *, dense=None, kept=None, planes=10, stages=None, note=None):
    batch, num_qo_heads, num_kv_heads, kv_len = case
    settings = {"call": "HND packed"} if method in ("sdpa_flash", "flashinfer") else {"num_planes": planes}
    return {
        "method": method,
        "settings": settings,
        "batch": batch,
        "num_qo_heads": num_qo_heads,
        "num_kv_heads": num_kv_heads,
        "kv_len": kv_len,
        "head_dim": 128,
        "nominal_bits": 60 * planes,
        "bits_per_token": 672,
        "kept_tokens": kept,
        "us": us,
        "us_quartiles": None if us is None else [us - 1, us + 1],
        "us_longest": None if us is None else us + 9,
        "us_mean": None if us is None else us + 1,
        "ratio_to_best_dense": None if dense is None else dense / us,
        "bytes": 10**8,
        "fraction_of_read_bandwidth": None if us is None else 0.4,
        "stage_us": stages,
        "misses": {"steps": 0.02, "us": us + 50} if method == "socket" else None,
        "note": note,
    }


def a_run(*rows):
    versions = {"torch": "2.11.0", "cuda_runtime": "13000"}
    bandwidths = {"copy_bandwidth_tb_s": 2.9, "read_bandwidth_tb_s": 3.0}
    return {"device": "a GPU", "driver": "1", "versions": versions, "commit": "c0ffee1234", **bandwidths, "rows": rows}


@pytest.fixture
def run(page):
    rows = []
    for case in (*page.BARS, *((1, 32, 8, 16384 * 2**i) for i in (0, 2, 4, 5, 6))):
        rows += [row("sdpa_flash", case, 210.0, dense=210, kept=case[3])]
        rows += [row("flashinfer", case, None, kept=case[3], note="all not run: ImportError: no | library")]
        rows += [row("socket", case, 100.0, dense=210, kept=round(case[3] / 33), stages=STAGES)]
    gqa = (1, 32, 8, 131072)
    rows += [row("socket", gqa, 90.0, dense=210, kept=3972, planes=8, stages=STAGES)]
    rows += [row("socket_index_build", (1, 32, 32, 131072), 3000.0), row("socket_append", (1, 32, 32, 131072), 9.0)]
    return a_run(*rows)


def line(text, start):
    return next(line for line in text.splitlines() if line.startswith(start))


def test_every_bar_and_aim_is_judged(page, run):
    table = page.main_table(run)
    assert len(table.splitlines()) == 2 + len(page.BARS) + 1
    assert "| **2.10×** | 3.3× **missed** | 4.0× **missed** |" in line(table, "| 32/32 heads, batch 1, N=131072")
    assert "| **2.10×** | 1.9× met | 2.5× **missed** |" in line(table, "| 32/8 heads, batch 8, N=32768")
    assert "| **2.10×** | 1.2× met | 1.5× met |" in line(table, "| 32/8 heads, batch 1, N=32768")
    assert "SDPA flash 210.0 (209.0-211.0) | 100.0 (99.0-101.0)" in table
    assert "| 3000.0 (2999.0-3001.0) | 6 ms met | 2 ms **missed** |" in page.index_table(run)


def test_a_ratio_on_the_bar_meets_it(page):
    case = (1, 32, 8, 32768)
    rows = [row("sdpa_flash", case, 12.0, dense=12, kept=32768), row("socket", case, 10.0, dense=12, kept=993)]
    assert "1.2× met | 1.5× **missed**" in page.main_table(a_run(*rows))


def test_settings_lengths_and_kernels_have_their_rows(page, run):
    assert re.search(r"\| P=8, 3972 kept .* 90.0 ", page.variants_table(run))
    assert [int(text.split("|")[1]) for text in page.growth_table(run).splitlines()[2:-1]] == [
        16384 * 2**i for i in range(7)
    ]
    assert "| P=8, 3972 kept | 2 % | 90.0 | 91.0 | 99.0 | 140.0 |" in page.misses_table(run)
    kernels = page.dense_table(run)
    assert "| SDPA flash | 210.0 (209.0-211.0) | HND packed |" in kernels
    assert "| FlashInfer | - | all not run: ImportError: no / library |" in kernels


def test_plots_are_well_formed_and_take_the_text_colour(page, run):
    text = page.fragment(run)
    plots = re.findall(r"```\{raw\} html\n(<svg .*?</svg>)\n```", text, re.DOTALL)
    assert len(plots) == 2
    for plot in plots:
        root = ET.fromstring(plot)
        assert root.get("aria-label").startswith("Time of a decode step")
        assert "currentColor" in plot
        assert page.INK not in plot
    names = re.findall(r" id=\"([^\"]*)\"", "".join(plots))
    assert len(set(names)) == len(names)
    stages, growth = plots
    for stage in STAGES:
        assert stage in stages
    assert "2.10×" in stages
    assert "1024K" in growth


def test_a_run_of_one_group_leaves_the_other_tables_empty(page):
    text = page.fragment(a_run(row("socket_append", (1, 32, 32, 131072), 9.0)))
    assert "append of one token" in text
    assert text.count("Not measured in this run.") == 6


def test_the_page_is_written_from_the_json_or_says_there_is_none(page, run, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    app = SimpleNamespace(srcdir=str(tmp_path))
    page.write_page(app)
    generated = tmp_path / "benchmarks" / "generated" / "decode.md"
    assert generated.read_text() == "No run is committed yet.\n"
    (tmp_path / "benchmarks" / "decode-h100.json").write_text(json.dumps(run))
    page.write_page(app)
    first = generated.read_text()
    assert "commit c0ffee1" in first
    page.write_page(app)
    assert generated.read_text() == first
