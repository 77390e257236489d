"""Whether any token at the border of a tile is lost from the sums, which gradients of millions of tokens do not show.

All values are 0 but those of the tokens on both sides of borders, and each of these is one number in one of the
columns, so a column of the output is a sum over few tokens however many there are: one that is lost takes a share of
it that rounding cannot take. The gradients of values are the same sums over queries, for an incoming gradient that is 0
but at the borders and there in proportion to the query's place, since a query counts by 1 / Den. Queries, keys, kernels
and buffers are those of the timed run. Not seen is a token that is lost from the sums of features alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_gpu.bench.gate import GateError
from socket_gpu.bench.shape import SEED
from socket_gpu.race.exact import wide
from socket_gpu.race.exact_law import Law
from socket_gpu.race.gate import on_host
from socket_gpu.race.inputs import SequenceInputs, bits, empty, rounded, store

Array = NDArray[Any]

TILE = 2048
"""Tokens from border to border, or twice, four times … as many where there would be more than some BORDERS."""
BORDERS = 2048
ROWS = 128
ALLOWED = 2.0**-7
"""How far an output may be off by its size, the sum of absolute values over some 32 tokens a column."""


@dataclass(frozen=True, eq=False)
class Borders:
    """The tokens [m] on both sides of borders and the rows [s] that are looked at, ascending; the numbers of these
    tokens in values [Hkv, m, E] and in the incoming gradient [Hq, m, E]."""

    tokens: Array
    rows: Array
    values: Array
    above: Array

    @classmethod
    def of(cls, inputs: SequenceInputs) -> Borders:
        """Borders at multiples of TILE, and the ends of the sequence."""
        length = inputs.keys.shape[2]
        every = TILE << max(length // TILE // BORDERS - 1, 0).bit_length()
        borders = np.arange(every, length, every)
        tokens = np.unique(np.concatenate([[0], borders - 1, borders, [length - 1]]))
        spread = np.linspace(0, length - 1, ROWS).astype(int)
        rows = np.union1d(spread, tokens[:: len(tokens) // ROWS + 1])
        rng = np.random.default_rng(SEED)
        values, above = (
            _one_a_row(rng, (heads, len(tokens), inputs.values.shape[-1]))
            for heads in (inputs.keys.shape[1], inputs.query.shape[1])
        )
        above *= ((tokens + 1) / length)[:, None]
        dtype = inputs.values.dtype
        return cls(tokens, rows, rounded(values, dtype), rounded(above, dtype))

    @property
    def watched(self) -> Array:
        """All these tokens, ascending."""
        return np.union1d(self.tokens, self.rows)

    def put(self, values: Any, above: Any) -> None:
        """Write the numbers into arrays [1, H, N, E] of the device."""
        cupy = import_module("cupy")
        for target, numbers in ((values, self.values), (above, self.above)):
            target.view(np.uint8).fill(0)
            for head, rows in enumerate(numbers.astype(np.float32)):
                there = empty(rows.shape, target.dtype)
                store(there, cupy.asarray(rows))
                bits(target)[0, head, cupy.asarray(self.tokens)] = bits(there)

    def outputs(self, sequences: Any) -> tuple[Array, Array]:
        """The value [Hq, s, E] and the gradient of the values [Hkv, s, E] that a run left at the rows."""
        rows = import_module("cupy").asarray(self.rows)
        value, d_values = (on_host(wide(array[0][:, rows])) for array in (sequences.value, sequences.d_values))
        return value, d_values

    def require(self, outputs: tuple[Array, Array], inputs: SequenceInputs, causal: bool, totals: Any) -> None:
        """GateError unless `outputs` have all the borders' tokens, for Den [Hq, w] of the watched tokens."""
        group = inputs.query.shape[1] // inputs.keys.shape[1]
        law = Law.of(on_host(inputs.planes), float(inputs.beta))
        den = on_host(totals)
        at_tokens, at_rows = (np.searchsorted(self.watched, places) for places in (self.tokens, self.rows))
        q_tokens, q_rows = (self._features(law, inputs.query, places) for places in (self.tokens, self.rows))
        k_tokens, k_rows = (self._features(law, inputs.keys, places) for places in (self.tokens, self.rows))
        seen = self.tokens[None] <= self.rows[:, None] if causal else np.True_
        later = self.tokens[None] >= self.rows[:, None] if causal else np.True_
        for head in range(len(q_rows)):
            weights = seen * (q_rows[head] @ k_tokens[head // group].T) / den[head, at_rows][:, None]
            _require(f"the value of query head {head}", outputs[0][head], weights, self.values[head // group])
        for head in range(len(k_rows)):
            mine = slice(head * group, (head + 1) * group)
            weights = later * (k_rows[head] @ np.swapaxes(q_tokens[mine], 1, 2)) / den[mine, None, at_tokens]
            weights, numbers = np.concatenate(list(weights), axis=1), np.concatenate(list(self.above[mine]))
            _require(f"the gradient of the values of KV head {head}", outputs[1][head], weights, numbers)

    @staticmethod
    def _features(law: Law, vectors: Any, places: Array) -> Any:
        """[H, len(places), F] on the host."""
        return law.features(on_host(wide(vectors[0][:, import_module("cupy").asarray(places)])))


def _require(name: str, found: Array, weights: Array, numbers: Array) -> None:
    error, size = abs(found - weights @ numbers), weights @ abs(numbers)
    if not (error <= ALLOWED * size).all():
        raise GateError(f"{name} lacks a token at the border of a tile, or has one too many.")


def _one_a_row(rng: np.random.Generator, shape: tuple[int, int, int]) -> Array:
    """Numbers of `shape` [H, m, E]: row i is zero except in column i mod E, where a number is drawn between 1 and 2 and
    given a random sign."""
    numbers = np.zeros(shape)
    at = np.arange(shape[1])
    numbers[:, at, at % shape[2]] = rng.uniform(1, 2, shape[:2]) * rng.choice([-1, 1], shape[:2])
    return numbers
