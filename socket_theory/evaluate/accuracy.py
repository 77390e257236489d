"""How far each method is from exact attention on captured queries, keys and values.

One metric: |o_hat - o| / |o| for each layer, query head and position, where o is the softmax over the position's
own prefix in float64. Beside it stand the softmax mass of the tokens a method kept and its recall,
|S intersect top-|S| of the exact logits| / |S|.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.attention import attention_logits, weighted_state
from socket_theory.core.cache import Cache
from socket_theory.core.method import Method
from socket_theory.core.rng import Key
from socket_theory.core.selection import Budget
from socket_theory.evaluate.capture import Capture
from socket_theory.evaluate.choice import by_number, forced_only, warn_without_choice
from socket_theory.evaluate.contenders import Contender, contenders
from socket_theory.evaluate.layers import each_layer, mean_of_heads

Float = NDArray[np.float64]
_MEASURES = ("density", "captured_mass", "recall", "relative_error")


@dataclass(frozen=True)
class Row:
    """One method over all layers, query heads and positions. `standard_error` is that of the mean error, as
    `mean_of_heads` has it; `forced_only` the share of positions where the budget leaves scores no choice, so that every
    selection keeps the same tokens."""

    method: str
    settings: dict[str, Any]
    nominal_bits: int
    bits_per_token: int
    density: float
    captured_mass: float
    recall: float
    relative_error_mean: float
    relative_error_p90: float
    standard_error: float | None
    forced_only: float = 0.0


def evaluate_attention(
    capture: Capture,
    budget: Budget,
    *,
    field: Sequence[Contender] | None = None,
    seed: int = 0,
    layers: Sequence[int] | None = None,
    on_layer: Callable[[], None] = lambda: None,
) -> list[Row]:
    """The field (every contender by default) on the captured layers (all by default), one row a contender.

    Layers run as in `each_layer`. Planes are drawn once a layer and shared by all methods; the sampling estimator
    draws as many tokens as the budget keeps of the whole context. With `center_keys` the offset is the mean key up to
    the first position.

    Raises
    ------
    ValueError
        If a layer is not in the capture.

    Warns
    -----
    ForcedTokensWarning
        If sink and window fill a budget at some position.
    """
    if field is None:
        field = contenders(num_samples=budget.kept(capture.k.shape[2]))
    lengths = (capture.positions + 1).tolist()
    warn_without_choice(dict.fromkeys(contender.budget(budget) for contender in field), lengths)
    results = each_layer(measure_layer, capture, layers, field, budget, seed=seed, on_layer=on_layer)
    bits = results[0][1]
    measures = np.stack([measured for measured, _ in results], axis=1)
    forced = [forced_only(contender.budget(budget), lengths) for contender in field]
    return [_summarise(*parts) for parts in zip(field, bits, measures, forced, strict=True)]


def measure_layer(
    q: NDArray[Any],
    k: NDArray[Any],
    v: NDArray[Any],
    positions: NDArray[Any],
    field: Sequence[Contender],
    budget: Budget,
    key: Key,
) -> tuple[Float, list[tuple[int, int]]]:
    """Density, captured mass, recall and relative error, and each contender's (nominal, stored) bits a token.

    Shapes: q [Hq, T, D], k, v [Hkv, N, D], positions [T] -> [contenders, Hq, T, 4].
    """
    caches = _prepare(k, v, int(positions.min()) + 1, field, key)
    measured = np.empty((len(field), *q.shape[:2], len(_MEASURES)))
    bits = [(0, 0)] * len(field)
    for time, position in enumerate(positions):
        truth = _Truth.of(q[:, time], k[:, : position + 1], v[:, : position + 1])
        for row, contender in enumerate(field):
            estimate = contender.method.attend(
                q[:, time],
                caches[row].truncate(int(position) + 1),
                budget=by_number(contender.budget(budget), int(position) + 1),
                key=key.fold_in(contender.name, int(position)) if "key" in contender.method.takes else None,
                out_dtype=np.float64,
            )
            bits[row] = estimate.stats.nominal_bits, estimate.stats.bits_per_token
            measured[row, :, time, 0] = estimate.stats.density
            measured[row, :, time, 1:] = truth.judge(estimate.value, estimate.indices)
    return measured, bits


def _prepare(k: NDArray[Any], v: NDArray[Any], prefill: int, field: Sequence[Contender], key: Key) -> list[Cache]:
    prepared: dict[Any, Cache] = {}
    caches = []
    for contender in field:
        method = contender.method
        if method.index_recipe not in prepared:
            prepared[method.index_recipe] = method.prepare(k, v, **_index_arguments(method, k, prefill, key))
        caches.append(prepared[method.index_recipe].with_method(method))
    return caches


def _index_arguments(method: Method, k: NDArray[Any], prefill: int, key: Key) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if method.sample_type is not None:
        arguments["key"] = key
    if "center" in method.freezes(len(k), k.shape[-1]):
        arguments["center"] = k[:, :prefill].mean(axis=1, dtype=np.float64)
    return arguments


@dataclass(frozen=True, eq=False)
class _Truth:
    """Exact attention of one position: outputs [Hq, D], softmax masses [Hq, N], and each token's rank by logit."""

    output: Float
    mass: Float
    rank: NDArray[np.int64]

    @classmethod
    def of(cls, q: NDArray[Any], k: NDArray[Any], v: NDArray[Any]) -> _Truth:
        group = len(q) // len(k)
        logits = np.stack([attention_logits(query, k[head // group]) for head, query in enumerate(q)])
        states = [weighted_state(row, v[head // group], "softmax") for head, row in enumerate(logits)]
        mass = np.exp(logits - np.stack([state.lse for state in states])[:, None])
        rank = np.empty(logits.shape, dtype=np.int64)
        np.put_along_axis(rank, np.argsort(-logits, axis=1), np.arange(logits.shape[1])[None], axis=1)
        return cls(np.stack([state.value for state in states]), mass, rank)

    def judge(self, value: Float, indices: NDArray[np.int32]) -> Float:
        """Captured mass, recall and relative error of one estimate (absolute where o = 0), [Hq, 3]."""
        norm = np.linalg.norm(self.output, axis=-1)
        error = np.linalg.norm(value - self.output, axis=-1) / np.where(norm > 0, norm, 1)
        used = indices >= 0
        mass = np.where(used, np.take_along_axis(self.mass, indices, axis=1), 0).sum(axis=1)
        kept = used.sum(axis=1)
        among_top = np.take_along_axis(self.rank, indices, axis=1) < kept[:, None]
        return np.stack([mass, (used & among_top).sum(axis=1) / kept, error], axis=1)


def _summarise(contender: Contender, bits: tuple[int, int], measured: Float, forced_only: float) -> Row:
    """Shapes: measured [layers, Hq, T, 4]."""
    density, mass, recall, _ = measured.mean(axis=(0, 1, 2)).tolist()
    errors = measured[..., -1]
    mean_error, standard_error = mean_of_heads(errors)
    return Row(
        contender.name,
        contender.settings,
        *bits,
        density,
        mass,
        recall,
        mean_error,
        float(np.quantile(errors, 0.9)),
        standard_error,
        forced_only,
    )
