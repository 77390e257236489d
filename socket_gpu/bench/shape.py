"""The shape of a decode step that is measured, and the seed of everything that a benchmark draws."""

from __future__ import annotations

from dataclasses import dataclass

SEED = 0


@dataclass(frozen=True)
class Shape:
    """A decode step over caches of equal length, in bfloat16."""

    batch: int
    num_qo_heads: int
    num_kv_heads: int
    kv_len: int
    head_dim: int = 128

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.num_qo_heads}/{self.num_kv_heads} heads, {self.kv_len} tokens"
