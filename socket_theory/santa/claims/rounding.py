"""N16: what weights in 16 bits do to the mean counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from socket_theory.core.claim import Claim, Context, Measurement, combine, inequality
from socket_theory.core.hashing import round_to_bfloat16
from socket_theory.santa.claims.problems import Float, cells, mildest, softmax_weights
from socket_theory.santa.law import systematic_law
from socket_theory.santa.samplers import counts_of_edges

Round = Callable[[Float], Float]
UNIT = 2.0**-8  # the largest relative error of rounding to 8 significant bits
NORMAL = 2.0**-126  # the smallest number of that many bits
NEGLIGIBLE = 1e-6  # relative; differences of a cumulative sum cost rows of little weight some digits


def _four_bits(weights: Float) -> Float:
    mantissa, exponent = np.frexp(weights)
    return np.asarray(np.ldexp(np.rint(16 * mantissa), exponent - 4))


def _sum_by_another_maximum(weights: Float) -> float:
    return float(weights.sum() / weights[: len(weights) // 2].max())


def _row_weights(context: Context) -> tuple[Float, ...]:
    """Softmax weights, and one row halfway between two values that rounds down where 60 others round up, small too."""
    rng = context.generator()
    drawn = [softmax_weights(rng, 40, spread) for spread in (0.5, 1.0, 2.0) for _ in range(context.samples(10))]
    return (*drawn, _halfway(), NORMAL * _halfway())


def _halfway() -> Float:
    return np.concatenate([[1 + UNIT], np.full(60, 1 + 3 * UNIT)])


def _relative_error(means: Float, weights: Float) -> Float:
    return np.asarray(np.abs(means * weights.sum() / (64 * weights) - 1))


def _rounded_rows(laws: Iterable[Float], rounding: Round, total: Callable[[Float], float]) -> Measurement:
    """Of S = 64 counts of rounded weights over a sum of their own."""
    parts = []
    for weights in laws:
        edges = 64 * np.cumsum(rounding(weights)) / total(weights)
        offsets, lengths = cells(np.ceil(edges) - edges)
        mean = lengths @ counts_of_edges(edges, offsets)
        parts.append(inequality(_relative_error(mean, weights), UNIT * (1 + NEGLIGIBLE)))
    return combine(*parts)


def _rounded_rows_check(context: Context) -> Measurement:
    return _rounded_rows(_row_weights(context), round_to_bfloat16, np.sum)


def _rounded_rows_control(context: Context) -> Measurement:
    laws = _row_weights(context)
    return mildest(
        _rounded_rows(laws, _four_bits, np.sum),
        _rounded_rows(laws, round_to_bfloat16, _sum_by_another_maximum),
        _rounded_rows([NORMAL / 16 * _halfway()], round_to_bfloat16, np.sum),
    )


def _renormalised_rows(context: Context, allowed: float) -> Measurement:
    """Of S = 64 counts of rounded weights over the sum of the rounded ones, as `systematic_law` has it."""
    means = [(systematic_law(round_to_bfloat16(w), 64).mean(), w) for w in _row_weights(context)]
    return combine(*(inequality(_relative_error(mean, w), allowed * (1 + NEGLIGIBLE)) for mean, w in means))


CLAIMS = (
    Claim(
        id="N16.row",
        title="Weights in 16 bits",
        statement="With weights of at least 2^-126 rounded to bfloat16 and divided by the sum of the unrounded ones, "
        "|E c_j / (S p_j) - 1| <= 2^-8.",
        source="own proof",
        kind="inequality",
        wrong="weights of 4 bits; a sum of weights relative to another maximum; weights below 2^-126",
        check=_rounded_rows_check,
        control=_rounded_rows_control,
    ),
    Claim(
        id="N16.renormalised",
        title="Weights in 16 bits, summed in 16 bits",
        statement="With weights of at least 2^-126 rounded to bfloat16 and divided by their own sum, so that the "
        "counts add up to S, |E c_j / (S p_j) - 1| <= 2u/(1 - u), u = 2^-8.",
        source="own proof",
        kind="inequality",
        wrong="u, the bound of a row alone",
        check=partial(_renormalised_rows, allowed=2 * UNIT / (1 - UNIT)),
        control=partial(_renormalised_rows, allowed=UNIT),
    ),
)
