"""A causal language model of characters whose blocks differ in their attention only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from socket_theory.core.checks import require_count

ROTARY_BASE = 10000.0
_SPREAD = 0.02


@dataclass(frozen=True)
class ModelSize:
    """`num_layers` pre-norm blocks of `width` channels, each `num_heads` heads of `head_dim` and an MLP of 4 widths."""

    width: int = 192
    num_layers: int = 4
    num_heads: int = 4
    head_dim: int = 64

    def __post_init__(self) -> None:
        for name in ("width", "num_layers", "num_heads"):
            require_count(name, getattr(self, name))
        if require_count("head_dim", self.head_dim) % 2:
            raise ValueError(f"head_dim={self.head_dim} was given: pass an even one, since positions turn pairs.")


class Block(torch.nn.Module):  # type: ignore[misc]
    """Attention and MLP, each behind a LayerNorm and added to what came in."""

    def __init__(self, size: ModelSize, attention: Any) -> None:
        super().__init__()
        self.num_heads, inner = size.num_heads, size.num_heads * size.head_dim
        self.before_attention, self.before_mlp = (torch.nn.LayerNorm(size.width) for _ in range(2))
        self.inward = torch.nn.Linear(size.width, 3 * inner, bias=False)
        self.attention = attention
        self.outward = torch.nn.Linear(inner, size.width, bias=False)
        self.widen = torch.nn.Linear(size.width, 4 * size.width)
        self.narrow = torch.nn.Linear(4 * size.width, size.width)

    def forward(self, tokens: Any, turns: Any) -> Any:
        heads = self.inward(self.before_attention(tokens)).unflatten(-1, (3, self.num_heads, -1))
        query, keys, values = heads.permute(2, 0, 3, 1, 4)  # each [B, H, N, D]
        value = self.attention(turned(query, turns), turned(keys, turns), values)
        tokens = tokens + self.outward(value.transpose(1, 2).flatten(2))
        return tokens + self.narrow(functional.gelu(self.widen(self.before_mlp(tokens))))


class LanguageModel(torch.nn.Module):  # type: ignore[misc]
    """Logits [B, N, vocabulary] of the characters after each of [B, N]; embedding and last layer share their weights.

    `attention(layer)` makes the attention of a block, a module of query, keys and values [B, H, N, D] that is causal.
    `seed` draws the weights, and what the attention draws is its own: for one seed and size all else is the same.
    """

    def __init__(self, vocabulary: int, size: ModelSize, attention: Callable[[int], Any], seed: int) -> None:
        super().__init__()
        self.size = size
        self.embedding = torch.nn.Embedding(vocabulary, size.width)
        self.blocks = torch.nn.ModuleList(Block(size, attention(layer)) for layer in range(size.num_layers))
        self.last = torch.nn.LayerNorm(size.width)
        draw = torch.Generator().manual_seed(seed)
        for name, weights in self.named_parameters():
            if weights.ndim == 2:
                deep = name.endswith(("outward.weight", "narrow.weight"))
                torch.nn.init.normal_(
                    weights, std=_SPREAD / (2 * size.num_layers) ** 0.5 if deep else _SPREAD, generator=draw
                )
            elif name.endswith("bias"):
                torch.nn.init.zeros_(weights)

    def forward(self, characters: Any) -> Any:
        tokens = self.embedding(characters)
        turns = rotations(characters.shape[-1], self.size.head_dim, tokens.device)
        for block in self.blocks:
            tokens = block(tokens, turns)
        return functional.linear(self.last(tokens), self.embedding.weight)


def rotations(count: int, head_dim: int, device: Any) -> tuple[Any, Any]:
    """Cosines and sines [count, head_dim / 2] of the angles by which positions turn pairs of channels."""
    speeds = ROTARY_BASE ** (-torch.arange(0, head_dim, 2, device=device) / head_dim)
    angles = torch.arange(count, device=device)[:, None] * speeds
    return angles.cos(), angles.sin()


def turned(heads: Any, turns: tuple[Any, Any]) -> Any:
    """Vectors [B, H, N, D] turned by their position, channel c together with channel c + D / 2."""
    cosines, sines = turns
    first, second = heads.float().chunk(2, -1)
    return torch.cat([first * cosines - second * sines, first * sines + second * cosines], -1).to(heads.dtype)
