"""The page on RACE's speed: bars, shares, stages, peers, slopes and plots as recorded, and no page without a run."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import pytest

pytest.importorskip("ml_dtypes", reason="pip install 'socket-theory[test]'")

from socket_gpu.bench.clock import Timing
from socket_gpu.bench.rows import Row, row_records
from socket_gpu.race.bench import floors
from socket_gpu.race.cases import SIZES, sequences
from socket_gpu.race.slopes import fitted_slopes
from socket_gpu.race.traffic import passes, race_bytes

MILLION = 2**20
READ, COPY = 4.6, 4.2


@pytest.fixture(scope="module")
def page(docs_extension):
    return docs_extension("race_table")


def ours(case, ms, backward=True, staged=True):
    names = list(passes(case.causal, backward))
    timing = Timing.of([1e3 * ms - 10, 1e3 * ms, 1e3 * ms + 10])
    return Row(
        method="race",
        settings=case.settings(backward),
        shape=case.shape,
        bytes=race_bytes(case.shape, case.causal, backward, case.element),
        timing=timing,
        stage_us=dict.fromkeys(names, 1e3 * ms / len(names)) if staged else None,
        peak_bytes=case.bytes_at_least + 2**29,
    )


def other(method, tokens, ms, backward=True, dtype="bfloat16", note=None, **settings):
    case = sequences(tokens, True, dtype)
    timing = None if ms is None else Timing.of([1e3 * ms] * 5)
    peak = None if ms is None else 7 * 2**30
    named = case.settings(backward) | settings
    return Row(method=method, settings=named, shape=case.shape, bytes=1, timing=timing, peak_bytes=peak, note=note)


def a_run(*rows):
    records = [record | floors(record, READ, COPY) for record in row_records(rows, READ)]
    versions = {"torch": "2.11.0", "cuda_runtime": "13020"}
    bandwidths = {"copy_bandwidth_tb_s": COPY, "read_bandwidth_tb_s": READ}
    named = {"device": "a GPU", "driver": "1", "versions": versions, "commit": "c0ffee1234"}
    run = named | bandwidths | {"rows": records, "slopes": fitted_slopes(records)}
    return json.loads(json.dumps(run, allow_nan=False))


@pytest.fixture(scope="module")
def run():
    rows = []
    for causal, ms in ((True, 15.0), (False, 10.0)):
        for tokens in SIZES:
            case = sequences(tokens, causal)
            rows += [ours(case, ms * tokens / MILLION / 3, False), ours(case, ms * tokens / MILLION)]
    rows.append(ours(sequences(17 * MILLION, True), 255.0, staged=False))
    rows += [ours(sequences(MILLION, True, "float32"), 30.0), ours(sequences(MILLION, True, heads=(8, 2)), 25.0)]
    rows += [other("linear", MILLION, 21.6, features=64), other("linear_race", MILLION, 45.0, features=64)]
    rows += [other("sdpa_flash", 65536, 30.0), other("sdpa_flash", 262144, 480.0)]
    rows += [other("sdpa_flash", MILLION, None, note="not run: the smaller sizes | predict 7.7 s a run")]
    rows += [
        other("race_cpu", tokens, ms, dtype="float32", cores=16) for tokens, ms in ((65536, 90.0), (262144, 360.0))
    ]
    return a_run(*rows)


def lines(text):
    return [line.strip("| ").split(" | ") for line in text.strip().splitlines()[2:]]


def test_every_bar_is_judged(page, run):
    assert lines(page.bars_table(run)) == [
        ["4M tokens, causal", "60.0 ms", "80 ms met", "45 ms **missed**"],
        ["4M tokens, not causal", "40.0 ms", "45 ms met", "32 ms **missed**"],
        ["1M tokens, causal", "15.0 ms", "chunk_linear_attn alone, 21.6 ms, met", "-"],
        ["most tokens in one pass, causal", "17M, 136.50 GiB", "8M met", "9M met"],
    ]


def test_growth_shows_both_runs_their_floors_and_the_peak(page, run):
    table = lines(page.growth_table(run))
    assert len(table) == 2 * len(SIZES) + 1
    (row,) = (line for line in table if line[0] == "4M, causal")
    floor = 128 * 2 * 4 * 4 * MILLION * (11 / READ + 8 / COPY) / 1e9
    assert row[1:4] == ["20.00 (20.00-20.00)", row[2], "60.00 (59.99-60.01)"]
    assert float(row[4]) == pytest.approx(floor, abs=0.02)
    assert row[5] == f"{100 * floor / 60:.0f} %"
    assert row[6:] == ["32.50", "3"]
    assert table[-len(SIZES) - 1][:3] == ["17M, causal", "-", "-"]


def test_stages_are_those_of_the_largest_size_measured_by_stages(page, run):
    table = lines(page.stages_table(run))
    assert [line[1] for line in table] == [f"`{name}`" for causal in (True, False) for name in passes(causal, True)]
    assert {line[0] for line in table} == {"8M, causal", "8M, not causal"}
    assert table[0][2] == "24.00"


def test_peers_stand_beside_our_time_or_say_why_not(page, run):
    table = {(line[0], line[1]): line[3:] for line in lines(page.peers_table(run))}
    assert table["chunk_linear_attn alone", "1M"] == ["21.60 (21.60-21.60)", "1.44×", "7.00"]
    assert table["SDPA flash", "256K"] == ["480.00 (480.00-480.00)", "128.00×", "7.00"]
    assert table["SDPA flash", "1M"] == ["not run: the smaller sizes / predict 7.7 s a run", "-", "-"]
    assert len(table) == 5


def test_the_cpu_the_slopes_and_the_variants_have_tables(page, run):
    assert lines(page.cpu_table(run))[1] == [
        "256K, causal, forward + backward",
        "16",
        "360.00 (360.00-360.00)",
        "7.00",
        "5",
    ]
    slopes = {(line[0], line[1]): line[2:] for line in lines(page.slopes_table(run))}
    assert slopes["RACE, our kernels", "causal, forward + backward, bfloat16, 4/4 heads"] == ["1M to 17M", "1.00"]
    assert slopes["SDPA flash", "causal, forward + backward, bfloat16, 4/4 heads"] == ["64K to 256K", "2.00"]
    assert [line[0] for line in lines(page.variants_table(run))] == [
        "float32, 4/4 heads, causal, forward + backward",
        "bfloat16, 8/2 heads, causal, forward + backward",
    ]


def test_the_plots_have_a_line_for_every_series(page, run):
    plots = re.findall(r"```\{raw\} html\n(<svg .*?</svg>)\n```", page.fragment(run), re.DOTALL)
    assert [ET.fromstring(plot).get("aria-label").split(" of ")[0] for plot in plots] == ["Time", "Peak memory"]
    for plot in plots:
        texts = [text.strip() for text in re.findall(r">([^<>]+)</text>", plot)]
        for name in ("RACE, our kernels", "RACE, our kernels, not causal", "SDPA flash", "RACE, torch on the CPU"):
            assert texts.count(name) == 1, name
        assert "8M" in texts
        assert "17M" not in texts


def test_without_a_run_the_page_says_so(page, run, tmp_path):
    assert page.fragment(a_run()).count("Not measured in this run.") == 7
    (tmp_path / "benchmarks").mkdir()
    app = SimpleNamespace(srcdir=str(tmp_path))
    page.write_page(app)
    generated = tmp_path / "benchmarks" / "generated" / "race.md"
    assert generated.read_text() == "No run is committed yet.\n"
    (tmp_path / "benchmarks" / page.RACE).write_text(json.dumps(run))
    page.write_page(app)
    assert "commit c0ffee1" in generated.read_text()
