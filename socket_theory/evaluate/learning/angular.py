"""Exact angular attention with a gradient, in plain torch: what RACE estimates, at the cost of every pair of tokens."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

AT_ONCE = 128
"""Queries whose weights are held at a time, forward and backward."""


class AngularAttention(torch.nn.Module):  # type: ignore[misc]
    """`angular_attention` with a fixed exponent, for a block of a model. It has no parameter."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, query: Any, keys: Any, values: Any) -> Any:
        return angular_attention(query, keys, values, self.gamma)


def angular_attention(query: Any, keys: Any, values: Any, gamma: float) -> Any:
    """O_i = sum_{j <= i} w_ij v_j / sum_{j <= i} w_ij with w_ij = (1 - theta_ij / pi)^gamma, query [..., N, D].

    As `socket_theory.race.targets.sharpened_angular_attention` defines it, of as many queries as keys, in the inputs'
    dtype, computed in float32, or in float64 for float64. The cosine is kept within 1 by 8 spacings of the dtype, since
    the angle has no derivative at 0: an angle below 0.0014 counts as that in float32, and has no gradient.
    """
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    with torch.autocast(query.device.type, enabled=False):
        q, k = (torch.nn.functional.normalize(vectors.to(dtype), dim=-1) for vectors in (query, keys))
        v = values.to(dtype)
        parts = []
        for start in range(0, q.shape[-2], AT_ONCE):
            stop = min(start + AT_ONCE, q.shape[-2])
            seen = (q[..., start:stop, :], k[..., :stop, :], v[..., :stop, :])
            parts.append(checkpoint(_rows, *seen, gamma, use_reentrant=False, preserve_rng_state=False))
        return torch.cat(parts, -2).to(query.dtype)


def _rows(query: Any, keys: Any, values: Any, gamma: float) -> Any:
    """The last rows of the triangle: query [..., n, D] stands beside the last n of the keys [..., N, D]."""
    most = 1 - 8 * torch.finfo(query.dtype).eps
    cosine = (query @ keys.mT).clamp(-most, most)
    weights = (1 - torch.acos(cosine) / math.pi) ** gamma
    weights = weights.tril(keys.shape[-2] - query.shape[-2])
    return weights @ values / weights.sum(-1, keepdim=True)
