"""Chunks of tokens of all heads: how they are cut out of queries, keys and values, and put back into outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

ON_A_CPU = 8192
"""Tokens times KV heads whose features are held at a time: they stay in a core's cache."""
ELSEWHERE = 131072
"""The same on any other device, where a launch has to be worth its time."""
LEAST = 64
CAUSAL = 256
"""Most tokens whose products with one another are formed, where each sees those before it."""


def compute_dtype(dtype: Any) -> Any:
    """float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def grouped(heads: Any, num_kv_heads: int) -> Any:
    """[..., H, n, C] as a view [..., Hkv, H / Hkv, n, C]."""
    return heads.unflatten(-3, (num_kv_heads, -1))


def chunk_size(heads: Any) -> int:
    """Tokens of a `grouped` view to take at a time."""
    at_once: int = ON_A_CPU if heads.device.type == "cpu" else ELSEWHERE
    return max(at_once // int(math.prod(heads.shape[:-2])), LEAST)


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
