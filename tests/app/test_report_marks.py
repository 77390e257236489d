"""Marks, bars and verdicts of a report lie where the numbers put them, worked out by hand."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader

from socket_theory import report
from socket_theory.core.claim import Claim, Measurement, Result
from socket_theory.report.chart import Axis, Curve, draw
from socket_theory.report.gauge import Gauge, Mark, place, share
from socket_theory.report.reading import relation
from socket_theory.report.verify_page import Entry, verify_report

TEMPLATES = Path(str(report.__file__)).parent / "templates"


@pytest.mark.parametrize(
    ("ratio", "mark"),
    [
        (1.0, Mark(0.5, 0)),
        (10.0, Mark(0.6667, 0)),
        (0.01, Mark(0.1667, 0)),
        (1000.0, Mark(1.0, 0)),
        (1e-3, Mark(0.0, 0)),
        (1001.0, Mark(1.0, 1)),
        (1e-4, Mark(0.0, -1)),
        (0.0, Mark(0.0, -1)),
        (math.inf, Mark(1.0, 1)),
    ],
)
def test_a_factor_of_ten_is_a_sixth_of_the_axis(ratio: float, mark: Mark) -> None:
    assert place(ratio) == mark


@pytest.mark.parametrize(
    ("observed", "allowed", "ratio"),
    [(0.3, 1.2, 0.25), (3.0, 1.2, 2.5), (0.0, 0.0, 0.0), (1e-9, 0.0, math.inf), (-1.0, 2.0, 0.0), (-2.0, -2.0, 1.0)],
)
def test_a_share_is_observed_over_allowed(observed: float, allowed: float, ratio: float) -> None:
    assert share(Measurement(observed, allowed)) == pytest.approx(ratio)


def test_check_control_and_quantile_have_marks_of_their_own() -> None:
    gauge = Gauge.of(Measurement(0.1, 1.0, 100.0), Measurement(20.0, 2.0))
    assert (gauge.check, gauge.control, gauge.quantile) == (place(0.1), place(10.0), place(0.01))


def test_an_error_bar_ends_one_standard_error_above_and_below_its_point() -> None:
    ends = [(10.0, 0.3, None), (10.0, 0.5, None)]
    chart = draw([Curve("bar", [(10.0, 0.4, 0.1)]), Curve("ends", ends), Curve("others", [(20.0, 0.15, None)])])
    assert chart is not None
    (_, (bar,)), (_, (low, high)), _ = chart.lines
    assert bar.low == low.y
    assert bar.high == high.y
    assert chart.top <= bar.high < bar.y < bar.low < chart.bottom


def test_a_bar_is_not_cut_off_at_an_end_of_the_axis() -> None:
    """The points alone would have an axis from 0.1 to 0.5, and both bars go beyond it."""
    chart = draw([Curve("a", [(1.0, 0.12, 0.04), (2.0, 0.48, 0.2)])])
    assert chart is not None
    ((_, (low, high)),) = chart.lines
    assert (chart.y_ticks[0].value, chart.y_ticks[-1].value) == (0.05, 1.0)
    for bar, ends in ((low, (0.08, 0.16)), (high, (0.28, 0.68))):
        scale = (chart.bottom - chart.top) / math.log(20)
        assert (bar.low, bar.high) == pytest.approx(
            [chart.bottom - scale * math.log(end / 0.05) for end in ends], abs=0.1
        )


def test_equal_factors_are_equal_ways_on_an_axis() -> None:
    axis = Axis(0.01, 1.0, 100.0, 0.0)
    assert [axis.at(value) for value in (0.0, 0.001, 0.01, 0.1, 1.0, 5.0)] == [100.0, 100.0, 100.0, 50.0, 0.0, 0.0]


def test_every_marked_point_is_drawn_with_its_whole_bar() -> None:
    curves = [Curve("a", [(1.0, 0.4, 0.1), (2.0, 0.3, 0.02)]), Curve("b", [(1.0, 0.2, 0.05)], marked=False)]
    plot = draw(curves)
    assert plot is not None
    macros = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True).get_template("chart.html").module
    drawn = str(macros.chart(plot, ["a", "b"], "t", "x", str, str))  # type: ignore[attr-defined]
    bars = re.findall(r'<line class="series-0 bar" x1="(.*?)" x2="(.*?)" y1="(.*?)" y2="(.*?)"/>', drawn)
    places = plot.lines[0][1]
    assert [tuple(map(float, bar)) for bar in bars] == [(p.x, p.x, p.low, p.high) for p in places]
    assert 'class="series-1 bar"' not in drawn
    for tick in plot.y_ticks:
        assert f'y1="{tick.at}" y2="{tick.at}"' in drawn


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (0.099, "not clearly apart from"),
        (0.101, "clearly above"),
        (-0.099, "not clearly apart from"),
        (-0.101, "clearly below"),
    ],
)
@pytest.mark.parametrize(("own", "others"), [(0.03, 0.04), (0.04, 0.03), (0.05, 0.0), (0.0, 0.05)])
def test_apart_is_more_than_two_standard_errors_of_the_difference(
    difference: float, words: str, own: float, others: float
) -> None:
    row = {"relative_error_mean": 0.5 + difference, "standard_error": own}
    assert relation(row, {"relative_error_mean": 0.5, "standard_error": others}) == words


def nothing(_: object) -> Measurement:
    return Measurement(0.0, 1.0)


CLAIMS = [Claim(name, "title", "statement", "source", "mean", "wrong", nothing, nothing) for name in ("S1", "S2")]
OUTCOMES = [  # observed by check and control of 1 allowed, the verdict, claims that hold and controls that are rejected
    (0.1, 10.0, None, "verified", 2, 2),
    (1.0, 1.0, None, "control passes", 2, 1),
    (2.0, 10.0, None, "does not hold", 1, 2),
    (2.0, 0.5, None, "does not hold", 1, 1),
    (math.nan, math.nan, "ValueError: no", "not measured", 1, 1),
]


@pytest.mark.parametrize(("check", "control", "error", "verdict", "holding", "rejected"), OUTCOMES)
def test_a_verdict_is_that_of_check_and_control(
    check: float, control: float, error: str | None, verdict: str, holding: int, rejected: int
) -> None:
    results = [
        Result("S1", Measurement(check, 1.0), Measurement(control, 1.0), 0.1, error),
        Result("S2", Measurement(0.1, 1.0), Measurement(10.0, 1.0), 0.1),
    ]
    entry = Entry(CLAIMS[0], results[0], Gauge.of(results[0].measurement, results[0].control))
    good = verdict == "verified"
    assert entry.verdict == verdict
    assert results[0].verified == good
    page = verify_report(CLAIMS, results, seed=0, effort="quick", command="c")
    tiles = re.findall(r'<div( class="alarm")?><dt>(?:claims that hold|controls rejected)</dt><dd>(.*?)</dd>', page)
    alarm = {True: ' class="alarm"', False: ""}
    assert tiles == [(alarm[holding < 2], f"{holding} of 2"), (alarm[rejected < 2], f"{rejected} of 2")]
    row = re.search(
        r'<tr( class="failed")?>\s*<td><a href="#S1">.*?<td class="(good|bad)">(.)<.*?</tr>', page, re.DOTALL
    )
    assert row is not None
    assert row.groups() == ((None, "good", "✓") if good else (' class="failed"', "bad", "✗"))
    article = re.search(r'<article class="claim( failed)?" id="S1">.*?verdict (good|bad)">(.)', page, re.DOTALL)
    assert article is not None
    assert article.groups() == ((None, "good", "✓") if good else (" failed", "bad", "✗"))
    assert ('id="failed"' in page) == (not good)


def test_the_overview_has_the_numbers_of_the_check() -> None:
    result = Result("S1", Measurement(0.25, 0.5, 4.0), Measurement(30.0, 1.0), 0.1)
    page = verify_report(CLAIMS[:1], [result], seed=0, effort="quick", command="c")
    assert re.findall(r'<td class="number wide">(.*?)</td>', page) == ["0.25", "0.5", "4"]


def test_claims_that_were_not_run_are_told() -> None:
    done = Result("S2", Measurement(0.1, 1.0), Measurement(10.0, 1.0), 0.1)
    page = verify_report(CLAIMS, [done], seed=0, effort="quick", command="c")
    assert "Interrupted: 1 of 2 claims were not run." in page
    assert "<p>S1</p>" in page


@pytest.mark.parametrize(("check", "over"), [(0.1, ""), (10.0, " over")])
def test_a_gauge_shows_the_check_red_beyond_its_line_only(check: float, over: str) -> None:
    """The axis of the sparkline runs from 16 to 136, that of the gauge from 16 to 384, the allowance in the middle."""
    result = Result("S1", Measurement(check, 1.0, 100.0), Measurement(100.0, 1.0), 0.1)
    page = verify_report(CLAIMS[:1], [result], seed=0, effort="quick", command="c")
    spark, gauge = (re.search(rf'<svg viewBox="{box}.*?</svg>', page, re.DOTALL) for box in ("0 0 152 20", "0 0 400"))
    assert spark is not None
    assert gauge is not None
    for drawing, middle, sixth in ((spark[0], 76.0, 20.0), (gauge[0], 200.0, 368 / 6)):
        ((kind, x),) = re.findall(r'<circle class="check(.*?)" cx="(.*?)"', drawing)
        assert kind == over
        assert float(x) == pytest.approx(middle + sixth * math.log10(check), abs=0.06)
        (cross,) = re.findall(r'<path class="control" d="M(\S+) ', drawing)
        assert float(cross) + 4.5 == pytest.approx(middle + 2 * sixth, abs=0.06)
        (diamond,) = re.findall(r'<path class="quantile" d="M(\S+) ', drawing)
        assert float(diamond) == pytest.approx(middle - 2 * sixth, abs=0.06)
        limits = re.findall(r'<line class="limit" x1="(.*?)" x2="(.*?)"', drawing)
        assert {float(x) for pair in limits for x in pair} == {middle}
        for x, width in re.findall(r'<rect class="within" x="(.*?)" y=".*?" width="(.*?)"', drawing):
            assert float(x) + float(width) == middle
        for x, width in re.findall(r'<rect class="beyond" x="(.*?)" y=".*?" width="(.*?)"', drawing):
            assert (float(x), float(x) + float(width)) == (middle, middle + 3 * sixth + 14)
