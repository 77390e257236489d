"""Work that is done layer by layer on a capture, and the error bar of what comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

from socket_theory.evaluate.capture import Capture
from socket_theory.rng import Key
from socket_theory.workers import results_of


def require_layers(layers: Sequence[int] | None, count: int) -> Sequence[int]:
    """`layers` if they are some of the `count` layers there are, all of them for None, else ValueError."""
    chosen = range(count) if layers is None else layers
    if not chosen or not all(0 <= layer < count for layer in chosen):
        raise ValueError(f"layers={list(chosen)} were given: pass some of 0 to {count - 1}.")
    return chosen


def each_layer(
    measure: Callable[..., Any],
    capture: Capture,
    layers: Sequence[int] | None,
    *arguments: Any,
    seed: int,
    on_layer: Callable[[], None],
) -> list[Any]:
    """measure(q, k, v, positions, *arguments, key) of each chosen layer, in order, all of them for `layers=None`.

    Layers go through joblib, so `joblib.parallel_config` decides where they run. The key is the seed's,
    folded with the layer. Raises ValueError if a layer is not in the capture.
    """
    key = Key.from_seed(seed)
    work = [
        joblib.delayed(measure)(
            capture.q[layer],
            capture.k[layer],
            capture.v[layer],
            capture.positions,
            *arguments,
            key.fold_in("layer", layer),
        )
        for layer in require_layers(layers, len(capture.q))
    ]
    results = []
    for result in results_of(work):
        results.append(result)
        on_layer()
    return results


def mean_of_heads(measured: NDArray[np.float64]) -> tuple[float, float | None]:
    """The mean of [layers, Hq, T] and its standard error: the (layer, head) pairs are independent units, the positions
    of a pair correlated. None for a single pair."""
    units = measured.mean(axis=-1).ravel()
    error = float(units.std(ddof=1) / np.sqrt(len(units))) if len(units) > 1 else None
    return float(measured.mean()), error
