"""Chunks of tokens of some heads: how they are cut out of queries, keys and values, and put back into outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

ON_A_CPU = 8192
"""Tokens times heads whose features are held at a time, if each has `USUAL` features: they stay in a core's cache."""
ELSEWHERE = 131072
"""The same on any other device, where a launch has to be worth its time."""
USUAL = 64
"""With more features than that there are fewer tokens at a time, with fewer there are no more."""
LEAST = 64
"""Tokens of a chunk; where that many of all heads are too much, fewer heads are taken at a time."""
CAUSAL = 256
"""Most tokens whose products with one another are formed, where each sees those before it."""


def compute_dtype(dtype: Any) -> Any:
    """float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def grouped(heads: Any, num_kv_heads: int) -> Any:
    """[..., H, n, C] as a view [..., Hkv, H / Hkv, n, C]."""
    return heads.unflatten(-3, (num_kv_heads, -1))


def chunk_size(heads: Any, num_features: int) -> int:
    """Tokens of a `grouped` view to take at a time."""
    return max(_at_once(heads, num_features) // int(math.prod(heads.shape[:-2])), LEAST)


def blocks(query: Any, num_features: int) -> Iterator[tuple[tuple[slice, ...], slice]]:
    """Blocks of KV heads of a `grouped` view to take at a time, together all of them.

    Each as an index of the leading axes [..., Hkv] and as the place of its heads among all of them.
    """
    *leading, group, _, _ = query.shape
    start = 0
    for index in _blocks(leading, max(_at_once(query, num_features) // (LEAST * group), 1)):
        count = math.prod(axis.stop - axis.start for axis in index) * math.prod(leading[len(index) :])
        yield index, slice(start, start + count)
        start += count


def _blocks(shape: list[int], most: int) -> Iterator[tuple[slice, ...]]:
    """Consecutive parts of `shape` with at most `most` places each."""
    inner = math.prod(shape[1:])
    if inner <= most:
        yield from ((span,) for span in spans(shape[0], most // inner))
    else:
        yield from ((span, *rest) for span in spans(shape[0], 1) for rest in _blocks(shape[1:], most))


def _at_once(heads: Any, num_features: int) -> int:
    at_once: int = ON_A_CPU if heads.device.type == "cpu" else ELSEWHERE
    return at_once * USUAL // max(num_features, USUAL)


def spans(count: int, size: int) -> Iterator[slice]:
    """[0, count) in slices of `size`, the last one shorter."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def read(heads: Any, span: slice, dtype: Any) -> Any:
    """Tokens of a `grouped` view as [G, r n, C] in `dtype`, with batch and KV heads in G."""
    chunk = heads[..., span, :].to(dtype)
    return chunk.reshape(-1, chunk.shape[-3] * chunk.shape[-2], chunk.shape[-1])


def write(heads: Any, span: slice, chunk: Any) -> None:
    """The inverse of `read`, with a rounding to the dtype of `heads`."""
    target = heads[..., span, :]
    target.copy_(chunk.view(target.shape))
