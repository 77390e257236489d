"""One decode step under many samplers: a softmax law is made once, and each sampler draws its values by it.

What comes out is that of the methods' own `attend` with the same key, up to the rounding of the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.attention import attention_logits
from socket_theory.core.draws import head_uniforms
from socket_theory.core.rng import Key
from socket_theory.core.step import Step
from socket_theory.santa.bernoulli import Bernoulli
from socket_theory.santa.cost import DecodeShape
from socket_theory.santa.estimator import Santa
from socket_theory.santa.tiles import largest_remainder, tile_masses

Float = NDArray[np.float64]
Sampled = Santa | Bernoulli
MEASURES = ("rows_per_head", "rows_per_kv_head", "key_share", "bytes_share", "relative_bias", "relative_error")


@dataclass(frozen=True, eq=False)
class Law:
    """The softmax law [Hq, n] of the scores of one query, and which key features these read [Hq, D]."""

    mass: Float
    features: NDArray[np.bool_]

    @classmethod
    def of(cls, scoring: Bernoulli | None, step: Step, keys: Float, key: Key) -> Law:
        """Of the query that `scoring` draws from `key`, or for None of the query itself. Shapes: keys [Hkv, n, D]."""
        asked = np.asarray(step.query if scoring is None else scoring.sample_query(step, key))[0]
        grouped = asked.reshape(len(keys), -1, asked.shape[-1])
        logits = np.concatenate([attention_logits(*pair) for pair in zip(grouped, keys, strict=True)])
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        read = np.ones(asked.shape, dtype=bool) if scoring is None else asked != 0
        return cls(weights / weights.sum(axis=1, keepdims=True), read)


@dataclass(frozen=True, eq=False)
class ReplayedStep:
    """A step of one sequence, its values [Hkv, n, D] in float64, the law of each way to score, and o [Hq, D]."""

    step: Step
    values: Float
    key: Key
    laws: dict[Bernoulli | None, Law]
    output: Float

    @classmethod
    def of(cls, step: Step, keys: Float, values: Float, field: Sequence[Sampled], key: Key) -> ReplayedStep:
        """Shapes: keys, values [Hkv, n, D]. Samplers draw from `key`, Bernoulli scores from `key.fold_in("query")`."""
        ways = dict.fromkeys([None, *(method.scoring for method in field)])
        laws = {way: Law.of(way, step, keys, key.fold_in("query")) for way in ways}
        return cls(step, values, key, laws, average(laws[None].mass, values))

    def measure(self, method: Sampled) -> Float:
        """MEASURES of one draw [Hq, 6]. Error and bias are absolute where the exact output is 0."""
        law, groups = self.laws[method.scoring], len(self.values)
        rows, read = self._draw(method, law.mass)
        of_group, key_share = union(read, groups).sum(axis=-1), union(law.features, groups).mean(axis=-1)
        shape = DecodeShape(read.shape[1], len(read), groups, self.values.shape[-1])
        norm = np.linalg.norm(self.output, axis=-1)
        measured = np.empty((len(read), len(MEASURES)))
        measured[:, 0] = read.sum(axis=-1)
        measured[:, 1] = np.repeat(of_group, len(read) // groups)
        measured[:, 2] = np.repeat(key_share, len(read) // groups)
        measured[:, 3] = shape.sampled(of_group.mean(), key_share=key_share.mean()) / shape.dense()
        measured[:, 4] = np.linalg.norm(self._bias(method), axis=-1)
        measured[:, 5] = np.linalg.norm(average(rows, self.values) - self.output, axis=-1)
        measured[:, 4:] /= np.where(norm > 0, norm, 1)[:, None]
        return measured

    def _draw(self, method: Any, mass: Float) -> tuple[Float, NDArray[np.bool_]]:
        """What each value row is multiplied by, and whether it is read: two arrays [Hq, n].

        A method that only draws the query, its own `scoring`, reads every value.
        """
        if method.scoring is method:
            return mass, np.ones(mass.shape, dtype=bool)
        uniforms = head_uniforms(self.key, self.step.query.shape, np.arange(method.num_uniforms(mass.shape[1])))[0]
        rows = np.stack([method.draws(*pair) for pair in zip(mass, uniforms, strict=True)])
        return rows, rows > 0

    def _bias(self, method: Sampled) -> Float:
        """E o_hat - o [Hq, D], exact (N2, N7, N8); NaN under Bernoulli scores, where it is not known."""
        if method.scoring is not None:
            return np.full(self.output.shape, np.nan)
        if method.sampler != "biased_prop":
            return np.zeros(self.output.shape)
        return average(
            np.stack([_rounding(row, method.num_samples, method.tile_len or len(row)) for row in self.laws[None].mass]),
            self.values,
        )


def average(rows: Float, values: Float) -> Float:
    """Weighted sums of the values: rows [Hq, n], values [Hkv, n, D] -> [Hq, D]."""
    used = rows.any(axis=0)
    if not used.all():
        rows, values = rows[:, used], values[:, used]
    grouped = rows.reshape(len(values), len(rows) // len(values), rows.shape[1])
    return (grouped @ values).reshape(len(rows), values.shape[2])


def union(used: NDArray[np.bool_], groups: int) -> NDArray[np.bool_]:
    """Used by any query head of a KV head: [Hq, n] -> [Hkv, n]."""
    return np.asarray(used.reshape(groups, -1, used.shape[1]).any(axis=1))


def _rounding(mass: Float, num_samples: int, tile_len: int) -> Float:
    """(S_t/S - w_t) p_(j|t): how much too often largest-remainder budgets draw each row, [n] -> [n]."""
    tiles = tile_masses(mass, tile_len)
    excess = largest_remainder(tiles, num_samples) / num_samples / np.where(tiles > 0, tiles, 1) - 1
    return mass * np.repeat(excess, tile_len)[: len(mass)]
