"""The SANTA page: bars, samplers and the spread over captured layers as recorded, a plot, and no page without a run."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import pytest

LONG, BATCH, SHORT = (1, 32, 8, 131072), (8, 32, 8, 32768), (1, 32, 8, 32768)
REAL, REPEATED = (1, 9, 3, 8176), (1, 9, 3, 131072)
SAMPLES = ["128", "256", "512", "1024", "128", "256", "128"]


@pytest.fixture(scope="module")
def page(docs_extension):
    return docs_extension("santa_table")


def row(method, case, us, *, settings, dense=None, kept=None, head_dim=128, source=None):
    batch, num_qo_heads, num_kv_heads, kv_len = case
    return {
        "method": method,
        "settings": settings | ({} if source is None else {"input": source}),
        "batch": batch,
        "num_qo_heads": num_qo_heads,
        "num_kv_heads": num_kv_heads,
        "kv_len": kv_len,
        "head_dim": head_dim,
        "kept_tokens": kept,
        "us": us,
        "us_quartiles": None if us is None else [us - 1, us + 1],
        "ratio_to_best_dense": None if dense is None else dense / us,
        "bytes": 270_100_000,
        "fraction_of_read_bandwidth": None if us is None else 0.75,
        "stage_us": {"score": us - 10.5, "draw": 10.5} if method == "santa" else None,
        "note": "all not run: ImportError: no | library" if us is None else None,
    }


def dense(case, us, **options):
    return row("sdpa_cudnn", case, us, settings={"call": "HND packed"}, dense=us, kept=case[3], **options)


def santa(case, us, rival, samples=128, sampler="phase_carried", kept=120, **options):
    settings = {"num_samples": samples, "sampler": sampler, "tile_len": 256, "seed": 0}
    return row("santa", case, us, settings=settings, dense=rival, kept=kept, **options)


def a_run(*rows):
    versions = {"torch": "2.11.0", "cuda_runtime": "13000"}
    bandwidths = {"copy_bandwidth_tb_s": 2.9, "read_bandwidth_tb_s": 3.0}
    return {"device": "a GPU", "driver": "1", "versions": versions, "commit": "c0ffee1234", **bandwidths, "rows": rows}


@pytest.fixture
def run():
    rows = [dense(LONG, 192.0), row("flashinfer", LONG, None, settings={"call": None}, kept=131072)]
    rows += [santa(LONG, 100.0 + 20 * i, 192.0, 128 * 2**i, kept=128 * 2**i - 3) for i in range(4)]
    rows += [santa(LONG, 150.0, 192.0, sampler="flash", kept=512)]
    rows += [dense(BATCH, 300.0), santa(BATCH, 200.0, 300.0), santa(BATCH, 201.0, 300.0, 256)]
    rows += [dense(SHORT, 52.0), santa(SHORT, 40.0, 52.0)]
    for case, words, scale in ((REAL, "", 1.0), (REPEATED, ", repeated", 4.0)):
        for layer, (rival, ours, kept) in enumerate([(20.0, 16.0, 100), (21.0, 20.0, 3), (24.0, 18.0, 50)]):
            options = {"head_dim": 64, "source": f"capture layer {layer}{words}"}
            rows += [
                dense(case, scale * rival, **options),
                santa(case, scale * ours, scale * rival, kept=kept, **options),
            ]
    rows += [dense(REAL, 22.0, head_dim=64), santa(REAL, 17.6, 22.0, kept=127, head_dim=64)]
    return a_run(*rows)


def line(text, start):
    return next(line for line in text.splitlines() if line.startswith(start))


def test_every_number_of_samples_is_judged(page, run):
    table = page.main_table(run)
    assert [text.split("|")[2].strip() for text in table.splitlines()[2:-1]] == SAMPLES
    name = "| 32/8 heads, batch 1, N=131072 | "
    rival = "SDPA cuDNN 192.0 (191.0-193.0) | "
    assert line(table, f"{name}128") == f"{name}128 | {rival}100.0 (99.0-101.0) | **1.92×** | 1.6× met | 75 % |"
    assert line(table, f"{name}256").endswith("120.0 (119.0-121.0) | **1.60×** | 1.6× met | 75 % |")
    assert "| **1.37×** | 1.6× **missed** |" in line(table, f"{name}512")
    assert "1.5× met" in line(table, "| 32/8 heads, batch 8, N=32768 | 128")
    assert "**1.49×** | 1.5× **missed**" in line(table, "| 32/8 heads, batch 8, N=32768 | 256")
    assert "1.3× met" in line(table, "| 32/8 heads, batch 1, N=32768 | 128")


def test_samplers_show_rows_bytes_and_stages(page, run):
    table = page.samplers_table(run)
    assert "| phase carried, S=1024 | 160.0 | 1.20× | 149.5 | 10.5 | 1021 | 270.1 |" in table
    assert "| flash, S=128 | 150.0 | 1.28× | 139.5 | 10.5 | 512 | 270.1 |" in table
    assert "9/3" not in table


def test_the_spread_over_layers_is_shown_beside_random_inputs(page, run):
    table = page.captured_table(run).splitlines()[2:]
    name = "9/3 heads, batch 1, N=8176, head_dim 64"
    assert table[0] == (
        f"| 3 layers: {name} | 20.0 / 21.0 / 24.0 | 16.0 / 18.0 / 20.0 | 1.05× / 1.25× / 1.33× | 3 / 50 / 100 |"
    )
    assert table[1] == f"| random: {name} | 22.0 | 17.6 | 1.25× | 127 |"
    assert table[2].startswith("| 3 layers repeated: 9/3 heads, batch 1, N=131072, head_dim 64 | 80.0 / 84.0 / 96.0 |")
    assert table[3:] == [""]


def test_dense_kernels_are_those_on_random_inputs(page, run):
    table = page.dense_table(run)
    assert table.count("9/3 heads") == 1
    assert "| FlashInfer | - | all not run: ImportError: no / library |" in table


def test_the_plot_has_a_bar_for_every_stage_of_every_s(page, run):
    (plot,) = re.findall(r"```\{raw\} html\n(<svg .*?</svg>)\n```", page.fragment(run), re.DOTALL)
    assert ET.fromstring(plot).get("aria-label").startswith("Time of a SANTA step")
    texts = [text.strip() for text in re.findall(r">([^<>]+)</text>", plot)]
    assert [text for text in texts if text.startswith("S=")] == [f"S={samples}" for samples in SAMPLES]
    assert [text for text in texts if text in ("best dense", "score", "draw")] == ["best dense", "score", "draw"]
    assert [text for text in texts if text.endswith("×")] == [
        f"{value:.2f}×" for value in (1.92, 1.6, 192 / 140, 1.2, 1.5, 300 / 201, 1.3)
    ]


def test_without_a_capture_or_a_run_the_page_says_so(page, run, tmp_path):
    text = page.fragment(a_run(dense(SHORT, 52.0), santa(SHORT, 40.0, 52.0)))
    assert text.count("Not measured in this run.") == 1
    assert page.fragment(a_run()).count("Not measured in this run.") == 4
    (tmp_path / "benchmarks").mkdir()
    app = SimpleNamespace(srcdir=str(tmp_path))
    page.write_page(app)
    generated = tmp_path / "benchmarks" / "generated" / "santa.md"
    assert generated.read_text() == "No run is committed yet.\n"
    (tmp_path / "benchmarks" / "santa-h100.json").write_text(json.dumps(run))
    page.write_page(app)
    assert "commit c0ffee1" in generated.read_text()
