"""What the gate looks at in a run over whole sequences: every row of the value and of every gradient, in float64.

A token that sums over very many tokens lack changes none of them by more than rounding does: `border_gate` looks for
it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.bench.gate import GateError, poison, require_close
from socket_gpu.race.exact import CHUNK, Head, exact_parts, wide
from socket_gpu.race.exact_law import Law
from socket_gpu.race.inputs import SequenceInputs, rounded
from socket_theory.race.gradient_scale import OUTPUT_ROUNDING, SUM_ROUNDING

OUTPUTS = {
    "value": "value",
    "query": "d_query",
    "keys": "d_keys",
    "values": "d_values",
    "planes": "d_planes",
    "beta": "d_beta",
}
MOST, ROOT_MEAN_SQUARE = 2.5, 2.0
"""How far a value of tensor cores may be off, by how far the rounding of the exact one is."""
FLOAT32_SUMS = 2e-5
"""How far a value in float32 may be off by its size: some 300 roundings."""
_ROWS = 4096


def law_of(inputs: SequenceInputs) -> Law:
    """The soft buckets of these inputs in float64."""
    return Law.of(inputs.planes, float(inputs.beta))


def require_exact(sequences: Any, inputs: SequenceInputs, above: Any, causal: bool, watched: Any) -> Any:
    """Compare all outputs of `sequences` with float64 ones; Den [Hq, number of watched tokens] of those tokens.

    Raises
    ------
    GateError
        Naming the output that is wrong, and by how much.
    """
    law, heads = law_of(inputs), inputs.keys.shape[1]
    group = inputs.query.shape[1] // heads
    worst: dict[str, Any] = {}
    sums: dict[str, list[Any]] = {}
    totals = np.zeros_like(inputs.planes, np.float64, shape=(inputs.query.shape[1], len(watched)))

    def note(name: str, place: str, ratio: Any) -> None:
        key = f"{name}{place}"
        worst[key] = np.maximum(worst[key], ratio) if key in worst else ratio

    for head in range(heads):
        asked, held = slice(head * group, (head + 1) * group), slice(head, head + 1)
        for name, span, exact, size in exact_parts(
            Head.of(head, inputs.query, inputs.keys, inputs.values, above, causal), law
        ):
            if name == "total":
                inside = np.flatnonzero((watched >= span.start) & (watched < span.stop))
                if len(inside):
                    part = slice(int(inside[0]), int(inside[-1]) + 1)
                    totals[asked, part] = exact[:, import_module("cupy").asarray(watched[part] - span.start), 0]
            elif name in ("planes", "beta"):
                before = sums.get(name, [0.0, 0.0])
                sums[name] = [before[0] + exact, before[1] + size]
            else:
                rows = asked if name in ("value", "query") else held
                found = getattr(sequences, OUTPUTS[name])[0, rows, span]
                note(name, f" of KV head {head}", _ratio(name, found, exact, size, law.beta))
    for name, (exact, size) in sums.items():
        if OUTPUTS[name] in outputs_of(sequences, backward=True):
            note(name, "", _ratio(name, getattr(sequences, OUTPUTS[name]), exact, size, law.beta))
    for place, ratio in worst.items():
        if not float(ratio) <= 1:
            what = place if place.startswith("value ") else f"gradient of the {place}"
            raise GateError(f"the {what} is off by {float(ratio):.3g} times what is allowed.")
    return totals


def _ratio(name: str, found: Any, exact: Any, size: Any, beta: float) -> Any:
    """The largest error over what is allowed; NaN where the output is."""
    error = abs(wide(found) - exact)
    if name != "value":
        return (error / (OUTPUT_ROUNDING * abs(exact) + SUM_ROUNDING * max(1.0, beta) * size)).max()
    if str(found.dtype) != "bfloat16":
        return (error / (2.0**-23 * abs(exact) + FLOAT32_SUMS * size)).max()
    floor = abs(rounded(exact, found.dtype) - exact)
    error, floor = (part.reshape(len(part), -1, CHUNK * part.shape[-1]) for part in (error, floor))
    most = (error.max(axis=-1) / floor.max(axis=-1)).max() / MOST
    mean = ((error**2).sum(axis=-1) / (floor**2).sum(axis=-1)).max() ** 0.5 / ROOT_MEAN_SQUARE
    return np.maximum(most, mean)


def outputs_of(sequences: Any, backward: bool) -> list[str]:
    """The arrays that a run writes. Kernels may leave the gradient of planes out, as planes are drawn and stay."""
    return [name for name in OUTPUTS.values() if hasattr(sequences, name)] if backward else ["value"]


def poison_outputs(sequences: Any, backward: bool = True) -> None:
    """Overwrite what a run is to write with NaN."""
    for name in outputs_of(sequences, backward):
        poison(getattr(sequences, name).reshape(-1))


def some_rows(sequences: Any, backward: bool) -> dict[str, Any]:
    """Rows of every output, spread evenly over the tokens, on the host in float64."""
    found = {}
    for name in outputs_of(sequences, backward):
        array = getattr(sequences, name)
        rows = array[:, :, :: max(array.shape[2] // _ROWS, 1)] if array.ndim == 4 else array
        found[name] = on_host(wide(rows))
    return found


def require_same_again(sequences: Any, backward: bool, before: dict[str, Any], replay: Callable[[], None]) -> None:
    """GateError unless a replay writes again, over NaN, what passed the gate."""
    poison_outputs(sequences, backward)
    replay()
    for name, rows in some_rows(sequences, backward).items():
        require_close(f"{name} of a replayed graph, compared with the gated run,", rows, before[name])


def on_host(array: Any) -> Any:
    """An array of NumPy."""
    return array.get() if hasattr(array, "get") else np.asarray(array)
