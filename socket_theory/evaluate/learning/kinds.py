"""The kinds of attention that are compared, each as a module of a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn.functional import scaled_dot_product_attention

from socket_theory.core.rng import Key
from socket_theory.evaluate.learning.angular import AngularAttention
from socket_theory.integrations.torch_layers import RaceAttention


@dataclass(frozen=True)
class Race:
    """RACE attention with planes drawn for each layer, and a beta for each layer that is learned from `beta` on."""

    num_planes: int = 4
    num_tables: int = 4
    beta: float = 1.0
    name: ClassVar[str] = "race"

    def attention(self, head_dim: int, key: Key) -> Any:
        return RaceAttention(
            head_dim,
            key=key,
            num_planes=self.num_planes,
            num_tables=self.num_tables,
            beta=self.beta,
            causal=True,
        )


@dataclass(frozen=True)
class Angular:
    """Weights (1 - theta / pi)^gamma."""

    gamma: float = 4.0
    name: ClassVar[str] = "angular"

    def attention(self, head_dim: int, key: Key) -> Any:
        return AngularAttention(self.gamma)


@dataclass(frozen=True)
class Softmax:
    """torch's own scaled dot products."""

    name: ClassVar[str] = "softmax"

    def attention(self, head_dim: int, key: Key) -> Any:
        return SoftmaxAttention()


Kind = Race | Angular | Softmax


class SoftmaxAttention(torch.nn.Module):  # type: ignore[misc]
    """Causal softmax attention of query, keys and values [B, H, N, D]."""

    def forward(self, query: Any, keys: Any, values: Any) -> Any:
        return scaled_dot_product_attention(query, keys, values, is_causal=True)
