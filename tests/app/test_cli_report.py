"""`--report`: one HTML file that stands alone, says everything that was measured, and shows what failed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from socket_theory.claims import registry
from socket_theory.cli import main
from socket_theory.core import claim as engine
from socket_theory.core.rng import Key
from socket_theory.evaluate.sweep import DENSITIES, NUM_TABLES
from socket_theory.report.attention_page import attention_report
from socket_theory.report.chart import Curve, draw
from socket_theory.report.verify_page import verify_report

VOID = {"meta", "link", "br", "hr", "img", "input", "rect", "circle", "line", "path", "polyline"}
NAN = float("nan")


class Page(HTMLParser):
    """What a browser would build of a page: balanced elements, their classes and ids, links and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.failed: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        given = dict(attrs)
        self.attributes |= set(given)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name == "href" and value]
        if tag == "article" and "failed" in (given["class"] or "").split():
            self.failed.append(str(given["id"]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_stands_alone(text: str, page: Page) -> None:
    assert not {"script", "link", "img", "iframe", "object", "embed", "image", "use"} & page.tags
    assert not {"src", "srcset", "data", "xlink:href"} & page.attributes
    assert not re.search(r"url\(|@import|https?://", text)
    assert not [name for name in page.attributes if name.startswith("on")]
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def results(**special: engine.Result) -> list[engine.Result]:
    """A verified outcome for every claim of the registry but for those given by ID."""

    def verified(name: str) -> engine.Result:
        return engine.Result(name, engine.Measurement(0.25, 1.0, 4.0), engine.Measurement(30.0, 1.0), 0.1)

    return [special.get(claim.id, verified(claim.id)) for claim in registry.CLAIMS]


def verify_page(outcome: list[engine.Result]) -> str:
    return verify_report(registry.CLAIMS, outcome, seed=3, effort="full", command="socket-theory verify --seed 3")


def test_a_report_on_all_claims_stands_alone_and_names_each_with_its_numbers() -> None:
    text = verify_page(results())
    page = Page(text)
    assert_stands_alone(text, page)
    assert {claim.id for claim in registry.CLAIMS} <= set(page.ids)
    for claim in registry.CLAIMS:
        assert f"{claim.id} · {claim.title}" in page.text
        assert f"socket-theory verify --claim {claim.id}" in page.text
    count = len(registry.CLAIMS)
    assert page.text.count("0.25 observed, 1 allowed") == page.text.count("30 observed, 1 allowed") == count
    assert page.text.count("4 times the measured quantile") == count
    assert f"claims that hold {count} of {count}" in page.text
    assert "socket-theory verify --seed 3" in page.text
    assert not page.failed
    assert "failed" not in page.ids


@pytest.mark.parametrize(
    ("check", "control", "error", "verdict"),
    [
        (2.0, 30.0, None, "does not hold"),
        (0.5, 0.5, None, "control passes"),
        (NAN, NAN, "ValueError: <script>alert('&')</script>", "not measured"),
    ],
)
def test_a_failure_cannot_be_overlooked(check: float, control: float, error: str | None, verdict: str) -> None:
    failing = engine.Result("S4", engine.Measurement(check, 1.0), engine.Measurement(control, 1.0), 0.1, error)
    text = verify_page(results(S4=failing))
    page = Page(text)
    assert_stands_alone(text, page)
    assert page.failed == ["S4"]
    count = len(registry.CLAIMS)
    assert page.text.startswith(f"1 of {count} claims not verified")
    assert f"Not verified: 1 of {count} S4 Soft-collision mean: {verdict}" in page.text
    assert "#S4" in page.links
    assert error is None or error in page.text


def test_equal_results_give_equal_reports() -> None:
    assert verify_page(results()) == verify_page(results())


def test_verify_writes_report_and_json_together_and_the_command_that_repeats_it(tmp_path: Path) -> None:
    paths = tmp_path / "F.html", tmp_path / "F.json"
    done = invoke(
        "verify", "--claim", "C2", "--claim", "C4", "--seed", 5, "--jobs", 1, "--report", paths[0], "--json", paths[1]
    )
    assert done.exit_code == 0, done.output
    assert f"Wrote {paths[0]}." in done.stderr
    page = Page(paths[0].read_text(encoding="utf-8"))
    rows = json.loads(paths[1].read_text())
    assert [name for name in page.ids if name[0] == "C"] == [row["id"] for row in rows] == ["C2.set", "C2.order", "C4"]
    assert "verify --claim C2 --claim C4 --seed 5 --report report.html" in page.text


def test_a_failing_claim_still_gets_its_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run_by_id(claim_id: str, *_: object) -> engine.Result:
        return engine.Result(claim_id, engine.Measurement(2.0, 1.0), engine.Measurement(2.0, 1.0), 0.1)

    monkeypatch.setattr(registry, "run_by_id", run_by_id)
    done = invoke("verify", "--claim", "C1", "--jobs", 1, "--report", tmp_path / "F.html")
    assert done.exit_code == 1
    assert Page((tmp_path / "F.html").read_text(encoding="utf-8")).failed == ["C1"]


def test_an_interrupted_run_reports_what_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = registry.verify

    def interrupted(*arguments: Any, **options: Any) -> Iterator[engine.Result]:
        yield next(whole(*arguments, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "verify", interrupted)
    done = invoke("verify", "--claim", "C2", "--jobs", 1, "--report", tmp_path / "F.html")
    assert done.exit_code == 130
    page = Page((tmp_path / "F.html").read_text(encoding="utf-8"))
    assert "Interrupted: 1 of 2 claims were not run. C2.order" in page.text


@pytest.mark.parametrize("command", [("verify", "--claim", "C1"), ("evaluate", "attention")])
def test_a_path_that_cannot_be_written_is_refused_before_anything_runs(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the run was started")

    monkeypatch.setattr(registry, "verify", refuse)
    monkeypatch.setattr("socket_theory.cli.evaluate.find_weights", refuse)
    missing, folder = (invoke(*command, "--report", path) for path in (tmp_path / "no" / "F.html", tmp_path))
    assert missing.exit_code == folder.exit_code == 2
    assert "is no directory: make it first." in " ".join(missing.output.split())
    assert "is a directory: pass the name of a file in it." in " ".join(folder.output.split())


@pytest.fixture(scope="module")
def attention(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """The report and the record of one run on random arrays whose file has a name that has to be escaped."""
    folder = tmp_path_factory.mktemp("attention")
    draw = Key.from_seed(8).generator()
    arrays: dict[str, Any] = {
        "q": 3 * draw.normal(size=(2, 4, 3, 16)),
        "k": draw.normal(size=(2, 2, 400, 16)).astype(np.float16),
        "v": draw.normal(size=(2, 2, 400, 16)).astype(np.float16),
        "positions": np.array([199, 299, 399]),
    }
    qkv = folder / "a<b&c.npz"
    np.savez(qkv, **arrays)
    options = ("--qkv", qkv, "--sink", 1, "--window", 2, "--density", 0.1, "--commit", "c0ffee")
    done = invoke("evaluate", "attention", *options, "--report", folder / "F.html", "--json", folder / "F.json")
    assert done.exit_code == 0, done.output
    return (folder / "F.html").read_text(encoding="utf-8"), json.loads((folder / "F.json").read_text())


def test_the_attention_report_stands_alone_and_shows_every_number(attention: tuple[str, dict[str, Any]]) -> None:
    text, record = attention
    page = Page(text)
    assert_stands_alone(text, page)
    assert "Attention estimators on a<b&c.npz" in page.text
    for row in record["rows"] + record["sampled_rows"]:
        assert f"{row['relative_error_mean']:.3f}" in page.text
        assert row["method"] in page.text
    for fact in (record["model_sha256"], "c0ffee", record["versions"]["numpy"]):
        assert fact in page.text
    assert "--sink 1 --window 2 --report report.html" in page.text
    assert "--json" not in page.text
    assert "--commit" not in page.text


def test_the_record_has_the_two_sweeps_of_the_report(attention: tuple[str, dict[str, Any]]) -> None:
    record = attention[1]
    names = ["oracle_top_k", "window", "hard_lsh", "socket_released", "socket_best"]
    assert [row["method"] for row in record["by_density"]] == names * len(DENSITIES)
    densities = [row["density"] for row in record["by_density"] if row["method"] == "oracle_top_k"]
    assert densities == pytest.approx(DENSITIES, abs=0.003)
    assert [row["method"] for row in record["by_bits"]] == names[2:] * len(NUM_TABLES)
    assert [row["nominal_bits"] for row in record["by_bits"]][::3] == [10 * tables for tables in NUM_TABLES]
    best = min(row["relative_error_mean"] for row in record["rows"] if row["method"] == "socket")
    at_density = record["by_density"][2 * len(names) : 3 * len(names)]
    assert at_density[-1]["relative_error_mean"] == record["by_bits"][-1]["relative_error_mean"] == best


def test_equal_records_give_equal_reports(attention: tuple[str, dict[str, Any]]) -> None:
    record = attention[1]
    once, again = (attention_report(json.loads(json.dumps(record)), command="c") for _ in range(2))
    assert once == again


def test_a_record_in_which_nothing_errs_has_a_report(attention: tuple[str, dict[str, Any]]) -> None:
    record = json.loads(json.dumps(attention[1]))
    for row in record["rows"] + record["sampled_rows"] + record["by_density"] + record["by_bits"]:
        row |= {"relative_error_mean": 0.0, "relative_error_p90": 0.0, "standard_error": None}
    for curve in record["variance_curves"]:
        curve |= dict.fromkeys(("slope", "slope_standard_error", "slope_p10", "slope_p90", "slope_of_mean"))
        curve |= {"relative_variance": [], "heads": 0}
    page = Page(attention_report(record, command="c"))
    assert page.text.count("Nothing to plot: every error is zero.") == 4
    assert "No head has a variance to fit a slope to." in page.text


def test_rows_without_a_choice_are_left_out_of_the_density_chart(attention: tuple[str, dict[str, Any]]) -> None:
    """Two densities of five methods whose budget sink and window fill, one of them at some positions only."""
    record = json.loads(json.dumps(attention[1]))
    for place, row in enumerate(record["by_density"]):
        row["forced_only"] = [1, 0.5][place // 5] if place < 10 else 0
    text = attention_report(record, command="c")
    (figure,) = re.findall(r'<svg [^>]*aria-label="Mean error against the share.*?</svg>', text, re.DOTALL)
    assert len(re.findall(r'bar" x1=', figure)) == len(record["by_density"]) - 10


@pytest.mark.parametrize(("marks", "drawn"), [([1], False), ([1, 0.5], True), ([0], True)])
def test_without_a_choice_at_any_number_of_bits_there_is_no_chart_of_bits(
    attention: tuple[str, dict[str, Any]], marks: list[float], drawn: bool
) -> None:
    record = json.loads(json.dumps(attention[1]))
    for place, row in enumerate(record["by_bits"]):
        row["forced_only"] = marks[place % len(marks)]
    text = attention_report(record, command="c")
    assert ('aria-label="Mean error against index bits' in text) == drawn
    assert text.count("Nothing to plot: the budget leaves scores no choice.") == (not drawn)


def test_every_row_of_the_attention_report_has_its_own_error_bar_and_amount(
    attention: tuple[str, dict[str, Any]],
) -> None:
    text, record = attention
    tables = re.findall(r'<table class="methods">.*?</table>', text, re.DOTALL)
    for table, rows in zip(tables, (record["rows"], record["sampled_rows"]), strict=True):
        lines = re.findall(r"<tr>\s*<td>.*?</tr>", table, re.DOTALL)
        largest = max(row["relative_error_mean"] for row in rows)
        for line, row in zip(lines, rows, strict=True):
            shown = re.findall(r'<td class="number">(.*?)</td>', line)
            names = ("relative_error_mean", "standard_error", "relative_error_p90")
            assert shown[:3] == [f"{row[name]:.3f}" for name in names]
            (width,) = re.findall(r'<rect width="(.*?)"', line)
            assert float(width) == pytest.approx(72 * row["relative_error_mean"] / largest, abs=0.06)


def test_the_charts_of_the_attention_report_have_bars_of_one_standard_error(
    attention: tuple[str, dict[str, Any]],
) -> None:
    text, record = attention
    charts = [
        ("density", record["by_density"], lambda row: row["density"], lambda row: row["method"]),
        ("index bits", record["by_bits"], lambda row: row["nominal_bits"], lambda row: row["method"]),
        (
            "number of draws",
            [row for row in record["sampled_rows"] if row["method"] == "santa"],
            lambda row: row["settings"]["num_samples"],
            lambda row: row["settings"]["sampler"],
        ),
    ]
    figures = re.findall(r"<svg [^>]*aria-label=\"Mean error against.*?</svg>", text, re.DOTALL)
    for (name, rows, x, curve), figure in zip(charts, figures, strict=True):
        groups: dict[str, list[tuple[float, float, float | None]]] = {}
        for row in rows:
            groups.setdefault(curve(row), []).append((x(row), row["relative_error_mean"], row["standard_error"]))
        curves = [Curve(method, points) for method, points in groups.items()]
        if name == "index bits":
            span = [row["nominal_bits"] for row in rows]
            references = [row for row in record["rows"] if row["method"] in ("oracle_top_k", "window")]
            curves += [
                Curve(
                    row["method"], [(bits, row["relative_error_mean"], None) for bits in (min(span), max(span))], False
                )
                for row in references
            ]
        chart = draw(curves)
        assert chart is not None
        expected = sorted((p.low, p.high) for line, places in chart.lines if line.marked for p in places)
        bars = re.findall(r'bar" x1=".*?" x2=".*?" y1="(.*?)" y2="(.*?)"', figure)
        assert sorted((float(low), float(high)) for low, high in bars) == expected, name
