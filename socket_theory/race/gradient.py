"""Gradients of RACE attention in linear time, in float64: the specification of every faster backward pass (R8).

Phi_Q and Phi_K are the features of queries and keys, O = Num / Den, and g is the gradient of a loss with respect to O.
u_i = (g_i, -<g_i, O_i>) / Den_i is the gradient with respect to (Num_i, Den_i). With v~_j = (v_j, 1), the others are

    dPhi_Q,i = sum_j <u_i, v~_j> Phi_K,j          over the keys j that query i sees: all, or a prefix
    dPhi_K,j = sum_i <v~_j, u_i> Phi_Q,i          over the queries i that see key j: all, or a suffix
    dv_j     = sum_i <Phi_K,j, Phi_Q,i> g_i / Den_i
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.attention import require_arrays
from socket_theory.core.checks import require_count, require_finite
from socket_theory.core.hashing import Planes
from socket_theory.race.feature_gradient import through_features
from socket_theory.race.features import require_beta, require_features, soft_buckets
from socket_theory.race.passes import CHUNK, grouped
from socket_theory.race.running_sums import sums_over_prefixes, sums_over_suffixes
from socket_theory.race.sequences import checked_sequences, require_planes

Float = NDArray[np.float64]
Through = Callable[[Float, Float, Planes, float], tuple[Float, Float, Float]]


@dataclass(frozen=True, eq=False)
class RaceGradients:
    """A float64 array of each input's shape: the gradient with respect to it, or a size that belongs to the gradient.

    Shapes: query [..., Hq, T, D], keys [..., Hkv, N, D], values [..., Hkv, N, E], planes [L, P, D], beta [].
    """

    query: Float
    keys: Float
    values: Float
    planes: Float
    beta: Float


def race_gradients(
    query: NDArray[Any],
    keys: NDArray[Any],
    values: NDArray[Any],
    planes: Planes,
    beta: float,
    output_gradient: NDArray[Any],
    causal: bool = False,
    *,
    chunk: int = CHUNK,
) -> RaceGradients:
    """Gradients of a loss through `race_attention(query, keys, values, planes, beta, causal).value` (R8).

    Time L 2^P (T + N) (D + E), and memory of the features of all tokens.

    Parameters
    ----------
    query, keys, values, planes, beta, causal, chunk
        As `race_attention` takes them; every slot is a valid token.
    output_gradient : array [..., Hq, T, E]
        The gradient of the loss with respect to the attention's value.

    Raises
    ------
    TypeError, ValueError
        As `race_attention` raises them, and for an output_gradient of another shape, or NaN.
    """
    tokens = Tokens.of(query, keys, values, planes, beta, output_gradient, causal, chunk)
    weighted, total = tokens.attend(tokens.values)
    of_weighted = tokens.gradient / total
    of_total = -(of_weighted * weighted / total).sum(axis=-1, keepdims=True)
    return tokens.back(np.concatenate([of_weighted, of_total], axis=-1), tokens.values, through_features)


@dataclass(frozen=True, eq=False)
class Tokens:
    """Float64 inputs by groups of query heads: query [B, Hkv, G, T, D], the gradient of its output [B, Hkv, G, T, E],
    keys [B, Hkv, 1, N, D], and values [B, Hkv, 1, N, E + 1] with a last component of 1.

    Causal, rows of 0 stand before the queries, so that T = N, and before the gradient, so that nothing comes of them.
    """

    query: Float
    gradient: Float
    keys: Float
    values: Float
    planes: Planes
    beta: float
    causal: bool
    chunk: int
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(
        cls,
        query: Any,
        keys: Any,
        values: Any,
        planes: Planes,
        beta: float,
        gradient: Any,
        causal: bool,
        chunk: int = CHUNK,
    ) -> Tokens:
        given = checked_sequences(query, keys, values, causal, None, None)
        require_planes(planes, keys.shape[-1])
        require_features(planes.num_planes, planes.num_tables)
        _check_gradient(gradient, (*query.shape[:-1], values.shape[-1]))
        incoming = gradient.reshape(*given.query.shape[:-1], values.shape[-1])
        before = [(0, 0)] * 3 + [(given.first if causal else 0, 0), (0, 0)]
        asking, incoming = (
            np.pad(grouped(rows, keys.shape[-3]).astype(np.float64), before) for rows in (given.query, incoming)
        )
        held, weighed = (rows[:, :, None].astype(np.float64) for rows in (given.keys, given.values))
        weighed = np.concatenate([weighed, np.ones((*weighed.shape[:-1], 1))], axis=-1)
        number, size = require_beta(beta, planes.num_planes), require_count("chunk", chunk)
        shapes = query.shape, keys.shape, values.shape
        return cls(asking, incoming, held, weighed, planes, number, causal, size, shapes)

    @cached_property
    def asked(self) -> Float:
        """Phi_Q [..., T, L 2^P]."""
        return _features(self.query, self.planes, self.beta)

    @cached_property
    def held(self) -> Float:
        """Phi_K [..., N, L 2^P]."""
        return _features(self.keys, self.planes, self.beta)

    def attend(self, values: Float) -> tuple[Float, Float]:
        """Num [..., T, E] and Den [..., T, 1] of values [..., N, E + 1]."""
        sums = sums_over_prefixes(self.asked, self.held, values, self.causal, self.chunk)
        return sums[..., :-1], sums[..., -1:]

    def back(self, u: Float, values: Float, through: Through) -> RaceGradients:
        """The three sums for these u [..., T, E + 1] and values [..., N, E + 1], carried on to the inputs.

        `through` takes dPhi [..., L 2^P], vectors [..., D], planes and beta to the gradients of the last three.
        """
        of_asked = sums_over_prefixes(u, values, self.held, self.causal, self.chunk)
        of_held = sums_over_suffixes(values, u, self.asked, self.causal, self.chunk).sum(axis=-3, keepdims=True)
        of_values = sums_over_suffixes(self.held, self.asked, u[..., :-1], self.causal, self.chunk).sum(axis=-3)
        query, planes_asked, beta_asked = through(of_asked, self.query, self.planes, self.beta)
        keys, planes_held, beta_held = through(of_held, self.keys, self.planes, self.beta)
        of_query, of_keys, of_values = (
            array.reshape(shape)
            for array, shape in zip((query[..., -self.shapes[0][-2] :, :], keys, of_values), self.shapes, strict=True)
        )
        return RaceGradients(of_query, of_keys, of_values, planes_asked + planes_held, beta_asked + beta_held)


def _features(vectors: Float, planes: Planes, beta: float) -> Float:
    features = soft_buckets(vectors, planes.weights, beta)
    return np.asarray(features.reshape(*features.shape[:-2], -1))


def _check_gradient(gradient: Any, shape: tuple[int, ...]) -> None:
    require_arrays(output_gradient=gradient)
    if gradient.shape != shape:
        raise ValueError(
            f"output_gradient of shape {gradient.shape} was given: pass {shape}, the shape of the attention's value."
        )
    require_finite("output_gradient", gradient)
