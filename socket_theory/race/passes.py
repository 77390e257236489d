"""Passes over tokens, a chunk at a time: their sums, and what queries read of sums, all at once or causally."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from socket_theory.race.features import soft_buckets
from socket_theory.race.sums import BucketSums

CHUNK = 64


def sums_of_tokens(keys: Any, values: Any, valid: Any, weights: Any, beta: float, *, chunk: int = CHUNK) -> BucketSums:
    """Sums over the valid tokens of each sequence and KV head.

    Shapes: keys [B, Hkv, N, D], values [B, Hkv, N, E], valid bool [B, N], weights [L, P, D] of the planes.
    """
    sums = BucketSums.of_none(values, weights)
    for some in _chunks(keys.shape[2], chunk):
        held = soft_buckets(cleared(keys[:, :, some], valid[:, some]), weights, beta)
        sums = sums.plus(_sums_of(held, values[:, :, some], valid[:, some])[0])
    return sums


def read_sums(query: Any, sums: BucketSums, weights: Any, beta: float, *, chunk: int = CHUNK) -> tuple[Any, Any]:
    """Value [B, Hq, T, E] and lse [B, Hq, T] of queries [B, Hq, T, D] over sums [B, Hkv, ...]."""
    per_head = grouped(query, sums.mass.shape[1])
    outputs = [
        _normalised(*_per_group(sums).read(soft_buckets(per_head[..., some, :], weights, beta)), weights.shape[0])
        for some in _chunks(query.shape[2], chunk)
    ]
    return _joined(outputs, query.shape)


def read_causally(
    query: Any,
    keys: Any,
    values: Any,
    valid: Any,
    before: BucketSums,
    weights: Any,
    beta: float,
    *,
    chunk: int = CHUNK,
) -> tuple[Any, Any]:
    """Value [B, Hq, T, E] and lse [B, Hq, T] of T tokens, each over those summed `before` and the valid ones up to it.

    Shapes: query [B, Hq, T, D], keys [B, Hkv, T, D], values [B, Hkv, T, E], valid bool [B, T]. At slots that are not
    valid the value is 0 and the lse -inf.
    """
    per_head, sums, outputs = grouped(query, keys.shape[1]), before, []
    for some in _chunks(query.shape[2], chunk):
        mine = valid[:, some]
        held = soft_buckets(cleared(keys[:, :, some], mine), weights, beta)
        asked = soft_buckets(cleared(per_head[..., some, :], mine), weights, beta)
        new, held, seen = _sums_of(held, values[:, :, some], mine)
        weighted, total = _per_group(sums).read_causally(asked, held[:, :, None], seen[:, :, None])
        outputs.append(_normalised(weighted, np.where(mine[:, None, None], total, 0), weights.shape[0]))
        sums = sums.plus(new)
    return _joined(outputs, query.shape)


def cleared(array: Any, valid: Any) -> Any:
    """`array` [B, ..., n, D] in float64, with zeros at the slots that are not valid, bool [B, n]."""
    return np.where(valid.reshape(len(valid), *[1] * (array.ndim - 3), -1, 1), array.astype(np.float64), 0.0)


def _chunks(slots: int, chunk: int) -> Iterator[slice]:
    return (slice(start, min(start + chunk, slots)) for start in range(0, slots, chunk))


def _sums_of(held: Any, values: Any, valid: Any) -> tuple[BucketSums, Any, Any]:
    """Sums over the valid tokens; features of 0 for the others, and values in float64 of 0 for them."""
    held = held * valid[:, None, :, None, None]
    seen = cleared(values, valid)
    return BucketSums.of(held, seen), held, seen


def grouped(query: Any, kv_heads: int) -> Any:
    """[B, Hq, T, D] -> [B, Hkv, Hq / Hkv, T, D]."""
    batch, heads, tokens, dim = query.shape
    return query.reshape(batch, kv_heads, heads // kv_heads, tokens, dim)


def _per_group(sums: BucketSums) -> BucketSums:
    """Sums [B, Hkv, ...] with an axis for the query heads of a group."""
    return BucketSums(sums.mass[:, :, None], sums.weighted[:, :, None])


def _normalised(weighted: Any, total: Any, tables: int) -> tuple[Any, Any]:
    """Value and lse of sums over tables, 0 and -inf where no token was seen."""
    seen = total > 0
    some = np.where(seen, total, 1)
    value = np.where(seen[..., None], weighted / some[..., None], 0)
    return value, np.where(seen, np.log(some / tables), -np.inf)


def _joined(outputs: list[tuple[Any, Any]], shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Chunks [B, Hkv, G, t, E] and [B, Hkv, G, t] as [B, Hq, T, E] and [B, Hq, T]."""
    value, lse = (np.concatenate(parts, axis=3) for parts in zip(*outputs, strict=True))
    return value.reshape(*shape[:3], -1), lse.reshape(shape[:3])
