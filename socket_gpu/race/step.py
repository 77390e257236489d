"""RACE's decode step over sums: what queries read of them, and tokens that are added to them.

Shapes: B sequences, Hq query heads, Hkv KV heads, L tables of P planes, F = L 2^P buckets, values of length E; mass
float64 [B, Hkv, F], weighted float64 [B, Hkv, F, E]; spans int64 [B, 2] on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.core._compile import compiled
from socket_gpu.core._launch import element, launch, struct

_THREADS, _SLICE = 256, 32
_MOST_FEATURES, _LARGEST_TILE = 4096, 32


@dataclass(frozen=True, eq=False)
class Hash:
    """Planes float64 [L, P, D] on the device, and beta."""

    planes: Any
    beta: float

    @classmethod
    def of(cls, weights: Any, beta: float) -> Hash:
        """Of planes on the host."""
        return cls(import_module("cupy").array(weights), beta)

    @property
    def buckets(self) -> int:
        """F = L 2^P."""
        tables, planes, _ = self.planes.shape
        return int(tables * 2**planes)

    @cached_property
    def params(self) -> Any:
        """The kernels' `Hash`."""
        tables, planes, dim = self.planes.shape
        beta = np.float64(self.beta)
        return struct(planes=self.planes, beta=beta, num_tables=tables, num_planes=planes, head_dim=dim)

    def shared_bytes(self, tokens: int) -> int:
        """Of the features of so many vectors, and of the two sides of each of their planes."""
        tables, planes, _ = self.planes.shape
        return 8 * tokens * (self.buckets + 2 * int(tables * planes))


def read_sums_into(value: Any, lse: Any, query: Any, hashed: Hash, mass: Any, weighted: Any, status: Any) -> None:
    """Value [B, Hq, E] and lse [B, Hq] of queries [B, Hq, D]; status bit 1 where a value is not finite."""
    batch, heads, length = value.shape
    launch(
        compiled("race/step.cu", "read_sums", element(query), element(value)),
        (-(-length // _SLICE), batch * heads),
        _THREADS,
        hashed.shared_bytes(1),
        query=query,
        hash=hashed.params,
        mass=mass,
        weighted=weighted,
        value=value,
        lse=lse,
        status=status,
        group=heads // mass.shape[1],
        value_dim=length,
    )


def add_tokens_into(mass: Any, weighted: Any, keys: Any, values: Any, hashed: Hash, spans: Any, num_slots: int) -> None:
    """Add keys [B, Hkv, T, D], values [B, Hkv, T, E] to the sums of sequences with T of `num_slots` left."""
    batch, heads, tokens, length = values.shape
    tile = min(tokens, _LARGEST_TILE, _MOST_FEATURES // hashed.buckets)
    launch(
        compiled("race/step.cu", "add_tokens", element(keys), element(values)),
        (-(-length // _SLICE), batch * heads),
        _THREADS,
        hashed.shared_bytes(tile),
        keys=keys,
        values=values,
        hash=hashed.params,
        mass=mass,
        weighted=weighted,
        spans=spans,
        num_kv_heads=heads,
        value_dim=length,
        tile=tile,
        tokens=np.int64(tokens),
        num_slots=np.int64(num_slots),
    )
