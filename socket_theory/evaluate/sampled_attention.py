"""SANTA and Bernoulli scores on captured queries, keys and values: error against samples, rows read and bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.baselines import Dense
from socket_theory.core.check_query import checked_scale
from socket_theory.core.rng import Key
from socket_theory.core.step import Step
from socket_theory.evaluate.capture import Capture
from socket_theory.evaluate.layers import each_layer, mean_of_heads
from socket_theory.evaluate.replayed_step import MEASURES, ReplayedStep, Sampled
from socket_theory.evaluate.sampling_variance import SAMPLERS, VarianceCurve, variance_curves, variance_traces
from socket_theory.santa.bernoulli import Bernoulli, BernoulliSanta
from socket_theory.santa.estimator import Santa, ValueSampler

Float = NDArray[np.float64]
NUM_SAMPLES = (32, 64, 128, 256, 512, 1024)
NUM_VECTORS = (4, 16, 64)
VALUE_SAMPLERS: tuple[ValueSampler, ...] = ("iid", "stratified", "phase_carried", "flash", "biased_prop")


@dataclass(frozen=True)
class SampledRow:
    """One method over all layers, query heads and positions, one draw at each.

    Parameters
    ----------
    rows_per_head, rows_per_kv_head : float
        Distinct value rows read by a query head, and by the query heads of a KV head together.
    key_share : float
        Share of the key features that the query heads of a KV head read together: 1 but under Bernoulli scores.
    bytes_share : float
        Keys and values read over those of dense attention. A key_share below 1 needs keys stored feature by feature.
    relative_bias : float or None
        Mean of |E o_hat - o| / |o|, exact: 0 for unbiased samplers, None for Bernoulli scores, where it is not known.
    relative_error_mean, relative_error_p90, standard_error : float
        Of |o_hat - o| / |o|; the last as `mean_of_heads` has it.
    """

    method: str
    settings: dict[str, Any]
    rows_per_head: float
    rows_per_kv_head: float
    key_share: float
    bytes_share: float
    relative_bias: float | None
    relative_error_mean: float
    relative_error_p90: float
    standard_error: float | None


def sampled_field() -> list[Sampled]:
    """Each value sampler with each of NUM_SAMPLES, Bernoulli scores with each of NUM_VECTORS, and the two together."""
    kinds = (Bernoulli(query_sampler="iid"), Bernoulli(), Bernoulli(shared_query=True))
    return [
        *(Santa(samples, sampler) for sampler in VALUE_SAMPLERS for samples in NUM_SAMPLES),
        *(Bernoulli(count, kind.query_sampler, kind.shared_query) for kind in kinds for count in NUM_VECTORS),
        *(BernoulliSanta(samples) for samples in NUM_SAMPLES),
    ]


def evaluate_sampling(
    capture: Capture,
    *,
    seed: int = 0,
    layers: Sequence[int] | None = None,
    on_layer: Callable[[], None] = lambda: None,
) -> tuple[list[SampledRow], list[VarianceCurve]]:
    """One row a method of `sampled_field`, and the exact variance of SAMPLERS, on the captured layers (all by default).

    Layers run as in `each_layer`. Raises ValueError if a layer is not in the capture.
    """
    field = sampled_field()
    results = each_layer(measure_layer, capture, layers, field, seed=seed, on_layer=on_layer)
    measured = np.stack([measures for measures, _ in results], axis=1)
    rows = [_summarise(*pair) for pair in zip(field, measured, strict=True)]
    return rows, variance_curves(np.stack([relative for _, relative in results]), NUM_SAMPLES)


def measure_layer(
    q: NDArray[Any], k: NDArray[Any], v: NDArray[Any], positions: NDArray[Any], field: Sequence[Sampled], key: Key
) -> tuple[Float, Float]:
    """MEASURES of each method, and the exact variances of SAMPLERS over |o|^2, NaN where o = 0.

    Shapes: q [Hq, T, D], k, v [Hkv, N, D], positions [T] -> [methods, Hq, T, 6] and [Hq, T, 3, len(NUM_SAMPLES)].
    """
    cache, keys, values = Dense().prepare(k, v), k.astype(np.float64), v.astype(np.float64)
    measured = np.empty((len(field), *q.shape[:2], len(MEASURES)))
    relative = np.empty((*q.shape[:2], len(SAMPLERS), len(NUM_SAMPLES)))
    for time, position in enumerate(positions.tolist()):
        rows = slice(0, position + 1)
        step = Step(q[None, :, time], cache.truncate(position + 1), checked_scale(None, q.shape[-1]))
        drawn_by = key.fold_in("sampled", position)
        replayed = ReplayedStep.of(step, keys[:, rows], values[:, rows], field, drawn_by)
        measured[:, :, time] = [replayed.measure(method) for method in field]
        relative[:, time] = _relative_variances(replayed)
    return measured, relative


def _relative_variances(replayed: ReplayedStep) -> Float:
    heads = replayed.laws[None].mass
    groups = zip(heads.reshape(len(replayed.values), -1, heads.shape[1]), replayed.values, strict=True)
    traces = np.concatenate([variance_traces(*group, NUM_SAMPLES) for group in groups])
    squares = (replayed.output**2).sum(axis=-1)
    return np.asarray(traces / np.where(squares > 0, squares, np.nan)[:, None, None])


def _summarise(method: Sampled, measured: Float) -> SampledRow:
    """Shapes: measured [layers, Hq, T, 6]."""
    mean = dict(zip(MEASURES, measured.mean(axis=(0, 1, 2)).tolist(), strict=True))
    mean_error, standard_error = mean_of_heads(measured[..., -1])
    return SampledRow(
        method=_NAMES[type(method)],
        settings=asdict(method),
        rows_per_head=mean["rows_per_head"],
        rows_per_kv_head=mean["rows_per_kv_head"],
        key_share=mean["key_share"],
        bytes_share=mean["bytes_share"],
        relative_bias=None if np.isnan(mean["relative_bias"]) else mean["relative_bias"],
        relative_error_mean=mean_error,
        relative_error_p90=float(np.quantile(measured[..., -1], 0.9)),
        standard_error=standard_error,
    )


_NAMES = {Santa: "santa", Bernoulli: "bernoulli", BernoulliSanta: "bernoulli_santa"}
