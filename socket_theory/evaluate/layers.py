"""Work that is done layer by layer on a capture, and the error bar of what comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

from socket_theory.core.rng import Key
from socket_theory.core.workers import results_of
from socket_theory.evaluate.capture import Capture


def require_layers(layers: Sequence[int] | None, there: Sequence[int]) -> list[int]:
    """`layers` if they are some of the numbers `there`, all of them for None, else ValueError."""
    chosen, known = list(there if layers is None else layers), list(there)
    if not chosen or not set(chosen) <= set(known):
        whole = known == list(range(len(known)))
        some = f"some of 0 to {known[-1]}" if whole else f"some of {', '.join(map(str, known))}, which have attention"
        raise ValueError(f"layers={chosen} were given: pass {some}.")
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

    Layers have the model's numbers, `capture.layers`, and go through joblib, so `joblib.parallel_config` decides where
    they run. The key is the seed's, folded with the layer. Raises ValueError if a layer is not in the capture.
    """
    key = Key.from_seed(seed)
    numbers = capture.layers.tolist()
    work = [
        joblib.delayed(measure)(
            *(array[numbers.index(layer)] for array in (capture.q, capture.k, capture.v)),
            capture.positions,
            *arguments,
            key.fold_in("layer", layer),
        )
        for layer in require_layers(layers, numbers)
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
