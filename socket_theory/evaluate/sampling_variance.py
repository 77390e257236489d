"""The exact variance of sampled attention on long contexts, and the power of the sample size that it falls with.

These are the traces of `santa.law` (N3-N5) in O(N E) memory, where enumerating cells of counts takes
O(N^2): nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from socket_theory.evaluate.layers import mean_of_heads

Float = NDArray[np.float64]
SAMPLERS = ("iid", "stratified", "systematic")


def variance_traces(weights: Float, values: Float, num_samples: Sequence[int]) -> Float:
    """tr Cov of the mean of S sampled values, for each of SAMPLERS and each S.

    Shapes: weights [G, N] of the heads that share values [N, E], up to a factor -> [G, 3, len(num_samples)].
    Source: N3, N4, N5.
    """
    columns = np.ascontiguousarray(values.T)
    steps = -np.diff(columns, axis=1)
    traces = np.empty((len(weights), len(SAMPLERS), len(num_samples)))
    for trace, row in zip(traces, weights, strict=True):
        law, cumulative = row / row.sum(), np.cumsum(row)
        centred, edges = columns - (columns @ law)[:, None], cumulative / cumulative[-1]
        variance = np.einsum("en,en->n", centred, centred) @ law
        trace[0] = variance / np.asarray(num_samples)
        trace[1] = _stratified_traces(law, centred, edges, variance, num_samples)
        trace[2] = [_systematic_trace(steps, edges, samples) for samples in num_samples]
    return traces


def _stratified_traces(
    law: Float, centred: Float, edges: Float, variance: float, num_samples: Sequence[int]
) -> list[float]:
    """(v - mean over strata of |stratum mean - mu|^2) / S, the stratum means from one integral of the quantile map."""
    integral = np.multiply(law, centred)
    np.cumsum(integral, axis=1, out=integral)
    traces = []
    for samples in num_samples:
        borders = np.arange(samples + 1) / samples
        token = np.minimum(np.searchsorted(edges, borders, side="right"), len(law) - 1)
        means = samples * np.diff(integral[:, token] - (edges[token] - borders) * centred[:, token], axis=1)
        traces.append(max(0.0, variance - float((means * means).sum()) / samples) / samples)
    return traces


def _systematic_trace(steps: Float, edges: Float, samples: int) -> float:
    """At the offset ceil(S F_j) - S F_j a draw passes from token j + 1 to token j, which adds steps[:, j]; between two
    such offsets the draws are constant."""
    ends = samples * edges[:-1]
    offsets = np.ceil(ends) - ends
    order = np.argsort(offsets)
    sums = np.take(steps, order, axis=1)
    np.cumsum(sums, axis=1, out=sums)
    lengths = np.diff(offsets[order], append=1.0)
    mean = sums @ lengths
    return max(0.0, float(np.einsum("en,en->n", sums, sums) @ lengths - mean @ mean)) / samples**2


@dataclass(frozen=True)
class VarianceCurve:
    """How the variance of one sampler falls over the heads of a run.

    Parameters
    ----------
    relative_variance : list of float
        tr Cov / |o|^2 for each of `num_samples`, its geometric mean over layers, heads and positions: the curve that
        falls with the mean slope.
    slope, slope_standard_error : float or None
        Of ln variance against ln S by least squares, the mean over heads; None without a head, or with one.
    slope_p10, slope_p90 : float or None
        Between these lie the slopes of eight heads in ten, each the mean over its positions.
    slope_of_mean : float or None
        Of the arithmetic mean of tr Cov / |o|^2, which the heads with the largest variance dominate.
    heads : int
        How many (layer, head) pairs count: those with a variance above zero and an output other than zero everywhere.
    """

    sampler: str
    num_samples: list[int]
    relative_variance: list[float]
    slope: float | None
    slope_standard_error: float | None
    slope_p10: float | None
    slope_p90: float | None
    slope_of_mean: float | None
    heads: int


def variance_curves(relative: Float, num_samples: Sequence[int]) -> list[VarianceCurve]:
    """One curve a sampler. Shapes: relative [layers, Hq, T, 3, len(num_samples)], NaN where the output is zero."""
    heads = relative.reshape(-1, *relative.shape[2:])
    return [_curve(sampler, heads[:, :, place], num_samples) for place, sampler in enumerate(SAMPLERS)]


def _curve(sampler: str, relative: Float, num_samples: Sequence[int]) -> VarianceCurve:
    counted = relative[(relative > 0).all(axis=(1, 2))]
    if not len(counted):
        return VarianceCurve(sampler, list(num_samples), [], None, None, None, None, None, 0)
    logs, steps = np.log(counted), np.log(num_samples) - np.log(num_samples).mean()
    slopes, of_mean = ((part @ steps) / (steps @ steps) for part in (logs, np.log(counted.mean(axis=(0, 1)))))
    low, high = np.quantile(slopes.mean(axis=1), (0.1, 0.9)).tolist()
    geometric = np.exp(logs.mean(axis=(0, 1))).tolist()
    return VarianceCurve(
        sampler, list(num_samples), geometric, *mean_of_heads(slopes), low, high, float(of_mean), len(counted)
    )
