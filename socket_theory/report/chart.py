"""A line chart with two logarithmic axes, as the coordinates that a template draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 400, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 18, 10, 262
_LABEL_ROOM = 34


@dataclass(frozen=True)
class Curve:
    """Points (x, y, standard error of y or None) under a name; without marks it is a line of reference."""

    name: str
    points: Sequence[tuple[float, float, float | None]]
    marked: bool = True


@dataclass(frozen=True)
class Place:
    """A point on the page; `low` and `high` are the ends of its error bar, one standard error each way."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Tick:
    """A line of the grid, and whether there is room for its label."""

    at: float
    value: float
    labelled: bool = True


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis from `low` to `high`, drawn between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value lies, kept between the ends."""
        part = math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else 0.0
        return round(self.start + min(max(part, 0.0), 1.0) * (self.end - self.start), 1)


@dataclass(frozen=True)
class Chart:
    """Curves on the page and the grid behind them."""

    lines: list[tuple[Curve, list[Place]]]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = _BOTTOM


def draw(curves: Sequence[Curve]) -> Chart | None:
    """The chart of the points whose x and y are positive, which a logarithm can show; None if there are none.

    The axis encloses the error bars, but those that reach zero, which end where it does.
    """
    shown = [(curve, [point for point in curve.points if point[0] > 0 and point[1] > 0]) for curve in curves]
    points = [point for _, kept in shown for point in kept]
    if not points:
        return None
    values = sorted({x for x, _, _ in points})
    grid = round_numbers(min(_low_end(*point) for point in points), max(y + (se or 0) for _, y, se in points))
    across = Axis(values[0] / 1.1, values[-1] * 1.1, _LEFT, WIDTH - _RIGHT)
    up = Axis(grid[0], grid[-1], _BOTTOM, _TOP)
    lines = [
        (curve, [Place(across.at(x), up.at(y), up.at(y - (se or 0)), up.at(y + (se or 0))) for x, y, se in kept])
        for curve, kept in shown
    ]
    return Chart(lines, _x_ticks(across, values), [Tick(up.at(value), value) for value in grid])


def round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten that enclose [low, high]; powers of ten alone over more than three decades."""
    steps = (1, 2, 5) if high / low <= 1e3 else (1,)
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    candidates = [float(f"{step}e{power}") for power in range(first, last + 1) for step in steps]
    below = max(value for value in candidates if value <= low)
    above = min(value for value in candidates if value >= high and value > below)
    return [value for value in candidates if below <= value < above] + [above]


def _low_end(_: float, y: float, error: float | None) -> float:
    """What the axis has to reach; a bar that goes down to zero has no end on it."""
    return y - error if error and error < y else y


def _x_ticks(across: Axis, values: Sequence[float]) -> list[Tick]:
    ticks, free_from = [], -math.inf
    for value in values:
        at = across.at(value)
        ticks.append(Tick(at, value, at >= free_from))
        free_from = at + _LABEL_ROOM if ticks[-1].labelled else free_from
    return ticks
