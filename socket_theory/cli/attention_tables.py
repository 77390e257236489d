"""What `evaluate attention` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from socket_theory.cli.columns import Column, print_fitted
from socket_theory.evaluate.accuracy import Row
from socket_theory.evaluate.contenders import short_settings
from socket_theory.evaluate.sampled_attention import SampledRow
from socket_theory.evaluate.sampling_variance import VarianceCurve

PIPED_WIDTH = 120
_METHOD, _SETTINGS = Column("method", right=False), Column("settings", least=11)
_SELECTIONS = (
    *(_METHOD, _SETTINGS, Column("bits", drop=1), Column("stored", drop=6), Column("density", drop=4)),
    *(Column("mass", drop=3), Column("recall", drop=5), Column("error"), Column("s.e."), Column("p90", drop=2)),
)
_SAMPLERS = (
    *(_METHOD, _SETTINGS, Column("rows", drop=1), Column("of KV", drop=6), Column("keys", drop=4)),
    *(Column("bytes", drop=3), Column("bias", drop=5), Column("error"), Column("s.e."), Column("p90", drop=2)),
)
_SLOPES = (
    *(Column("draws", right=False), Column("slope"), Column("s.e."), Column("p10", drop=2), Column("p90", drop=3)),
    *(Column("of mean", drop=1), Column("heads", drop=4)),
)


def print_tables(
    rows: Sequence[Row], sampled: Sequence[SampledRow], curves: Sequence[VarianceCurve], console: Console
) -> None:
    """The selections, the samplers and the slopes of the variance, each with a line that says what it shows."""
    print_fitted(console, _SELECTIONS, [_selection(row) for row in rows])
    if any(row.forced_only for row in rows):
        console.print("* the budget leaves scores no choice somewhere: all selections keep the same tokens there.")
    console.print("error is |o_hat - o| / |o|: its mean over layers, heads and positions, with standard error and p90.")
    if not sampled:
        return
    console.print()
    print_fitted(console, _SAMPLERS, [_sampler(row) for row in sampled])
    console.print(
        "Without a budget: value rows read by a head and by a KV head, keys and bytes over those of dense attention, "
        "and the bias, |E o_hat - o| / |o|, which no averaging over draws removes."
    )
    console.print()
    print_fitted(console, _SLOPES, [_slope(curve) for curve in curves])
    console.print(
        "The exact variance of the value falls as S^slope: the mean over heads, where 8 in 10 of them lie, and the "
        "slope of their mean variance."
    )


def _selection(row: Row) -> list[str]:
    figures = (row.density, row.captured_mass, row.recall, row.relative_error_mean, row.standard_error)
    shown = [_decimal(figure) for figure in (*figures, row.relative_error_p90)]
    shown[3] += "*" if row.forced_only else ""
    return [row.method, short_settings(row.settings), str(row.nominal_bits), str(row.bits_per_token), *shown]


def _sampler(row: SampledRow) -> list[str]:
    counts = (f"{row.rows_per_head:.0f}", f"{row.rows_per_kv_head:.0f}")
    figures = (row.key_share, row.bytes_share, row.relative_bias, row.relative_error_mean, row.standard_error)
    return [row.method, short_settings(row.settings), *counts, *map(_decimal, (*figures, row.relative_error_p90))]


def _slope(curve: VarianceCurve) -> list[str]:
    figures = (curve.slope, curve.slope_standard_error, curve.slope_p10, curve.slope_p90, curve.slope_of_mean)
    return [curve.sampler, *map(_decimal, figures), str(curve.heads)]


def _decimal(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3f}"
