"""Where the gradients of a RACE attention are collected, chunk by chunk (R8)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from socket_theory.integrations.race_torch.buckets import Buckets, Hash
from socket_theory.integrations.race_torch.chunks import chunk_size, grouped, read, spans, write


@dataclass(eq=False)
class Gradients:
    """Gradients: `grouped` views for queries, keys and values, sums for beta and, unless None, for planes [P L, D]."""

    query: Any
    keys: Any
    values: Any
    beta: Any
    planes: Any

    @classmethod
    def like(cls, query: Any, keys: Any, values: Any, hashed: Hash, planes_too: bool) -> Gradients:
        """Uninitialised for tensors [..., H, n, C], zero for the sums."""
        num_kv_heads = keys.shape[-3]
        d_query, d_keys, d_values = (grouped(x.new_empty(x.shape), num_kv_heads) for x in (query, keys, values))
        d_planes = torch.zeros_like(hashed.rows) if planes_too else None
        return cls(d_query, d_keys, d_values, torch.zeros_like(hashed.beta), d_planes)

    def part(self, index: tuple[slice, ...]) -> Gradients:
        """Of some heads, as views, with the same sums to add to."""
        return replace(self, query=self.query[index], keys=self.keys[index], values=self.values[index])

    def put(self, into: Any, span: slice, buckets: Buckets, weighted: Any, scale: Any = None) -> None:
        """Of a chunk of queries or keys with dphi_r phi_r `weighted` [G, F, n], each token's times `scale` [G, n]."""
        projected, beta = buckets.backward(weighted, scale)
        write(into, span, buckets.to_vectors(projected))
        self.beta += beta
        if self.planes is not None:
            self.planes += buckets.to_planes(projected)

    def put_keys(self, span: slice, held: Buckets, values: Any, mass: Any, weighted: Any) -> None:
        """Of keys that all the queries see whose sums are dA = `mass` [G, F] and dB = `weighted` [G, F, E]."""
        towards = torch.baddbmm(mass[:, :, None], weighted, values.mT)
        write(self.values, span, torch.bmm(held.features.mT, weighted))
        self.put(self.keys, span, held, towards.mul_(held.features))

    def put_all_keys(self, keys: Any, values: Any, hashed: Hash, mass: Any, weighted: Any) -> None:
        """The same for the first keys, of `grouped` views of keys and values."""
        for span in spans(keys.shape[-2], chunk_size(keys, hashed.num_features)):
            held = hashed.buckets(read(keys, span, mass.dtype))
            self.put_keys(span, held, read(values, span, mass.dtype), mass, weighted)
