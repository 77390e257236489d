"""Where the plots of a report put what was measured."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_theory.core.claim import Measurement
from socket_theory.report.chart import Curve, draw, round_numbers
from socket_theory.report.gauge import DECADES, Gauge, place, share

NUMBERS = st.floats(-1e6, 1e6) | st.just(math.inf)
POSITIVE = st.floats(1e-12, 1e6)


@given(NUMBERS, NUMBERS)
def test_a_share_of_at_most_one_is_what_holds(observed: float, allowed: float) -> None:
    measurement = Measurement(observed, allowed)
    ratio = share(measurement)
    assert ratio <= 1 if measurement.holds else ratio >= 1
    assert ratio >= 0


@given(st.floats(0, math.inf), st.floats(0, math.inf))
def test_the_axis_keeps_the_order_and_puts_the_allowance_in_the_middle(one: float, two: float) -> None:
    low, high = (place(ratio) for ratio in sorted((one, two)))
    assert low is not None
    assert high is not None
    assert 0 <= low.x <= high.x <= 1
    assert (low.beyond, high.beyond) == (max(low.beyond, -1), min(high.beyond, 1))
    middle = place(1.0)
    assert middle is not None
    assert middle.x == 0.5


def test_what_lies_off_the_axis_is_marked_and_what_was_not_measured_is_absent() -> None:
    assert [place(10.0 ** (sign * (DECADES + 1))).beyond for sign in (-1, 1)] == [-1, 1]  # type: ignore[union-attr]
    assert [place(10.0 ** (sign * DECADES)).beyond for sign in (-1, 1)] == [0, 0]  # type: ignore[union-attr]
    nothing = Measurement(math.nan, math.nan)
    assert Gauge.of(nothing, nothing) == Gauge(None, None, None)


def test_the_quantile_lies_at_one_over_the_tightness() -> None:
    gauge = Gauge.of(Measurement(0.1, 1.0, 10.0), Measurement(2.0, 1.0))
    assert gauge.quantile == gauge.check == place(0.1)
    assert Gauge.of(Measurement(0.0, 1.0, math.inf), Measurement(2.0, 1.0)).quantile == place(0.0)


@given(POSITIVE, POSITIVE)
def test_round_numbers_enclose_the_range(one: float, two: float) -> None:
    low, high = sorted((one, two))
    grid = round_numbers(low, high)
    assert grid == sorted(set(grid))
    assert grid[0] <= low <= high <= grid[-1]
    assert len(grid) < 24


def test_a_chart_keeps_order_and_stays_on_the_page() -> None:
    curves = [Curve("a", [(0.02, 0.1, 0.2), (0.2, 0.01, None)]), Curve("b", [(0.02, 1.0, 0.1)], marked=False)]
    chart = draw(curves)
    assert chart is not None
    (first, (left, right)), (second, (top,)) = chart.lines
    assert (first.name, second.name) == ("a", "b")
    assert chart.left < left.x < right.x < chart.right
    assert chart.top <= top.y < left.y < right.y <= chart.bottom
    assert left.low == chart.bottom, "an error bar that reaches below zero ends at the axis"
    assert left.high < left.y < left.low
    assert right.low == right.high == right.y
    assert all(chart.top <= tick.at <= chart.bottom for tick in chart.y_ticks)


def test_labels_that_would_overlap_are_left_out() -> None:
    chart = draw([Curve("a", [(x, 1.0, None) for x in (0.02, 0.0201, 0.05, 0.2)])])
    assert chart is not None
    assert [tick.labelled for tick in chart.x_ticks] == [True, False, True, True]


@pytest.mark.parametrize("points", [[], [(0.05, 0.0, None)]])
def test_without_a_positive_error_there_is_no_chart(points: list[tuple[float, float, None]]) -> None:
    assert draw([Curve("a", points)]) is None
