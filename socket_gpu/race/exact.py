"""RACE's value and gradients of whole sequences in float64 where the inputs lie, a block of tokens at a time.

The law is that of `socket_theory.race.gradient` and `gradient_scale`, which see few tokens: with v~_j = (v_j, 1) and
u_i = (g_i, -<g_i, O_i>) / Den_i all outputs are sums sum_j <asked_i, held_j> values_j over all tokens, a prefix or a
suffix. Here the sums of a block come from those of its chunks, so that a device has work for all its processors. Each
output comes with its size, in which every term counts by its absolute value. Arrays of NumPy or CuPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from socket_gpu.race.exact_law import Law

CHUNK = 128
BLOCK = 2**16
_KINDS = (False, True)  # the output, and its size


@dataclass(frozen=True, eq=False)
class Head:
    """A KV head and its G query heads, as they lie on the device: query [G, N, D], keys [1, N, D], values [1, N, E],
    and the gradient of the value `above` [G, N, E]. N is a multiple of CHUNK."""

    query: Any
    keys: Any
    values: Any
    above: Any
    causal: bool

    @classmethod
    def of(cls, head: int, query: Any, keys: Any, values: Any, above: Any, causal: bool) -> Head:
        """KV head number `head` of arrays [1, H, N, ...]."""
        group = query.shape[1] // keys.shape[1]
        asked, held = slice(head * group, (head + 1) * group), slice(head, head + 1)
        return cls(query[0, asked], keys[0, held], values[0, held], above[0, asked], causal)

    def spans(self) -> list[slice]:
        """The blocks of tokens, in order."""
        size = max(BLOCK // len(self.query), CHUNK)
        return [slice(start, min(start + size, self.length)) for start in range(0, self.length, size)]

    @property
    def length(self) -> int:
        return int(self.keys.shape[1])


Part = tuple[str, slice, Any, Any]


def exact_values(head: Head, law: Law) -> Iterator[tuple[slice, list[Any], list[Any]]]:
    """Block by block (span, [O, size of O] [G, n, E], [Den] [G, n, 1]), from the first token on."""
    for span, _, _, outputs, total, _ in _forward(head, law):
        yield span, outputs, [total]


def exact_parts(head: Head, law: Law) -> Iterator[Part]:
    """(name, tokens, output, its size): "total", which is Den, "value" and "query" of each block, then "keys" and
    "values" of each, and last "planes" and "beta", which are this head's part of a sum over heads. Arrays [G or 1, n,
    length]; of the total the size is itself."""
    planes: list[Any] = [0.0, 0.0]
    beta: list[Any] = [0.0, 0.0]
    suffixes: list[Any] = [0.0, 0.0]
    kept: list[tuple[slice, Any, list[Any]]] = []

    def passed(gradients: list[Any], features: Any, vectors: Any) -> list[Any]:
        found = []
        for kind in _KINDS:
            of_vectors, of_planes, of_beta = law.through(gradients[kind], features, vectors, kind)
            planes[kind] = planes[kind] + of_planes
            beta[kind] = beta[kind] + of_beta
            found.append(of_vectors)
        return found

    for span, asked, held, outputs, total, before in _forward(head, law):
        g, v = wide(head.above[:, span]), wide(head.values[:, span])
        along = [(g * outputs[0]).sum(axis=-1, keepdims=True), (abs(g) * outputs[1]).sum(axis=-1, keepdims=True)]
        gradients: list[Any] = []
        for kind in _KINDS:
            u, w = _incoming(g, along, total, kind), _extended(v, kind)
            gradients.append(_seen(u, w, held, _turned(before[kind]), head.causal)[0])
            if not head.causal:
                suffixes[kind] = suffixes[kind] + _turned(u) @ asked
        yield "total", span, total, total
        yield "value", span, outputs[0], outputs[1]
        of_query = passed(gradients, asked, wide(head.query[:, span]))
        yield "query", span, of_query[0], of_query[1]
        kept.append((span, total, along))
    if head.causal:
        suffixes = [np.zeros_like(_turned(before[kind]), shape=_shape(head, law)) for kind in _KINDS]
    for span, total, along in reversed(kept):
        q, k, v, g = (wide(array[:, span])[:, ::-1] for array in (head.query, head.keys, head.values, head.above))
        asked, held = law.features(q), law.features(k)
        total, along = total[:, ::-1], [part[:, ::-1] for part in along]
        of_keys, of_values = [], []
        for kind in _KINDS:
            u, w = _incoming(g, along, total, kind), _extended(v, kind)
            of_held, after = _seen(w, u, asked, suffixes[kind], head.causal)
            upper = _turned(suffixes[kind])[..., :-1]
            of_values.append(_seen(held, asked, u[..., :-1], upper, head.causal)[0].sum(axis=0, keepdims=True))
            of_keys.append(of_held.sum(axis=0, keepdims=True))
            suffixes[kind] = after
        for name, parts in (("keys", passed(of_keys, held, k)), ("values", of_values)):
            yield name, span, parts[0][:, ::-1], parts[1][:, ::-1]
    yield "planes", slice(None), planes[0], planes[1]
    yield "beta", slice(None), beta[0], beta[1]


def _forward(head: Head, law: Law) -> Iterator[tuple[slice, Any, Any, list[Any], Any, list[Any]]]:
    """Per block: tokens, Phi_Q, Phi_K, [O, size], Den, and the sums [1, F, E + 1] of what the block's tokens see: of
    those before it if causal, else of all."""
    sums: list[Any] = [0.0, 0.0]
    for span in head.spans():
        held, v = law.features(wide(head.keys[:, span])), wide(head.values[:, span])
        sums = [sums[kind] + _turned(held) @ _extended(v, kind) for kind in _KINDS]
        if head.causal:
            sums = [np.zeros_like(part) for part in sums]
            break
    for span in head.spans():
        asked, held = law.features(wide(head.query[:, span])), law.features(wide(head.keys[:, span]))
        v = wide(head.values[:, span])
        read = [_seen(asked, held, _extended(v, kind), sums[kind], head.causal) for kind in _KINDS]
        total = read[0][0][..., -1:]
        yield span, asked, held, [found[..., :-1] / total for found, _ in read], total, sums
        sums = [after for _, after in read]


def _shape(head: Head, law: Law) -> tuple[int, int, int]:
    """Of the sums over queries [G, E + 1, F]."""
    tables, num_planes, _ = law.weights.shape
    return len(head.query), head.values.shape[-1] + 1, tables * 2**num_planes


def _seen(asked: Any, held: Any, values: Any, before: Any, causal: bool) -> tuple[Any, Any]:
    """sum_j <asked_i, held_j> values_j, over the tokens summed in `before` alone unless causal, and then also over
    those of the block up to i; and the sums after the block."""
    if not causal:
        return asked @ before, before
    a, h, v = (array.reshape(array.shape[0], -1, CHUNK, array.shape[-1]) for array in (asked, held, values))
    each = _turned(h) @ v
    ends = np.cumsum(np.concatenate([before[:, None] + np.zeros_like(each[:, :1]), each], axis=1), axis=1)
    among = a @ _turned(h)
    among *= np.tril(np.ones_like(among, shape=among.shape[-2:]))
    found = a @ ends[:, :-1] + among @ v
    return found.reshape(found.shape[0], -1, found.shape[-1]), ends[:, -1]


def _extended(values: Any, absolute: bool) -> Any:
    values = abs(values) if absolute else values
    return np.concatenate([values, np.ones_like(values[..., :1])], axis=-1)


def _incoming(g: Any, along: list[Any], total: Any, absolute: bool) -> Any:
    """u = (g, -<g, O>) / Den, or with absolute values (|g|, <|g|, |O|>) / Den."""
    pair = [abs(g), along[1]] if absolute else [g, -along[0]]
    return np.concatenate(pair, axis=-1) / total


def _turned(array: Any) -> Any:
    return np.swapaxes(array, -1, -2)


def wide(array: Any) -> Any:
    """In float64, whatever the dtype: through float32 where a library does not cast bfloat16 itself."""
    if str(array.dtype) == "bfloat16":
        array = (array.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(np.float64)
