"""What `evaluate attention` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from socket_theory.evaluate.accuracy import Row
from socket_theory.evaluate.contenders import short_settings
from socket_theory.evaluate.sampled_attention import SampledRow
from socket_theory.evaluate.sampling_variance import VarianceCurve

_PIPED_WIDTH = 120


def print_tables(rows: Sequence[Row], sampled: Sequence[SampledRow], curves: Sequence[VarianceCurve]) -> None:
    """The selections, the samplers and the slopes of the variance, each with a line that says what it shows."""
    terminal = Console(highlight=False)
    console = terminal if terminal.is_terminal else Console(highlight=False, width=_PIPED_WIDTH)
    console.print(_selections(rows))
    if any(row.forced_only for row in rows):
        console.print("* sink and window fill the budget at some position: all selections keep the same tokens there.")
    console.print("error is |o_hat - o| / |o|: its mean over layers, heads and positions, with standard error and p90.")
    console.print()
    console.print(_samplers(sampled))
    console.print("Without a budget: value rows read by a head and by a KV head, keys and bytes over those of dense")
    console.print("attention, and the bias, |E o_hat - o| / |o|, which no averaging over draws removes.")
    console.print()
    console.print(_slopes(curves))
    console.print("The exact variance of the value falls as S^slope: the mean over heads, where 8 in 10 of them lie,")
    console.print("and the slope of their mean variance.")


def _selections(rows: Sequence[Row]) -> Table:
    table = _table("bits", "stored", "density", "mass", "recall", "error", "s.e.", "p90")
    for row in rows:
        figures = (row.density, row.captured_mass, row.recall, row.relative_error_mean, row.standard_error)
        shown = [_decimal(figure) for figure in (*figures, row.relative_error_p90)]
        shown[0] += "*" if row.forced_only else ""
        table.add_row(row.method, short_settings(row.settings), str(row.nominal_bits), str(row.bits_per_token), *shown)
    return table


def _samplers(rows: Sequence[SampledRow]) -> Table:
    table = _table("rows", "of KV", "keys", "bytes", "bias", "error", "s.e.", "p90")
    for row in rows:
        counts = (f"{row.rows_per_head:.0f}", f"{row.rows_per_kv_head:.0f}")
        figures = (row.key_share, row.bytes_share, row.relative_bias, row.relative_error_mean, row.standard_error)
        shown = [_decimal(figure) for figure in (*figures, row.relative_error_p90)]
        table.add_row(row.method, short_settings(row.settings), *counts, *shown)
    return table


def _slopes(curves: Sequence[VarianceCurve]) -> Table:
    table = Table("draws", box=None, pad_edge=False)
    for heading in ("slope", "s.e.", "p10", "p90", "of mean", "heads"):
        table.add_column(heading, justify="right", no_wrap=True)
    for curve in curves:
        figures = (curve.slope, curve.slope_standard_error, curve.slope_p10, curve.slope_p90, curve.slope_of_mean)
        table.add_row(curve.sampler, *(_decimal(figure) for figure in figures), str(curve.heads))
    return table


def _table(*headings: str) -> Table:
    table = Table("method", "settings", box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _decimal(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3f}"
