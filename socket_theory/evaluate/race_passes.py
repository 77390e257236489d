"""RACE's passes in torch as a benchmark runs them: with none of the kernels that the operator may choose on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from socket_theory.integrations.race_torch import causal, whole
from socket_theory.integrations.race_torch.buckets import Hash
from socket_theory.integrations.race_torch.chunks import compute_dtype, grouped
from socket_theory.integrations.race_torch.gradients import Gradients


def torch_passes(
    query: Any, keys: Any, values: Any, planes: Any, beta: Any, is_causal: bool
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """What runs the passes forward, and what runs them forward and backward; both give the value.

    The arguments are those of `race_attention`, beta a tensor. The incoming gradient is standard normal.
    """
    hashed = Hash.of(planes, beta, compute_dtype(query.dtype))
    above = torch.randn_like(query)

    def attend() -> tuple[Any, Any, Any]:
        value = query.new_empty(*query.shape[:-1], values.shape[-1])
        q, k, v, into = (grouped(tensor, keys.shape[-3]) for tensor in (query, keys, values, value))
        mass, weighted = whole.empty_sums(k, v, hashed)
        (causal if is_causal else whole).attend(q, k, v, into, hashed, mass, weighted)
        return value, mass, weighted

    def forward() -> Any:
        return attend()[0]

    def both() -> Any:
        value, mass, weighted = attend()
        into = Gradients.like(query, keys, values, hashed, False)
        q, k, v, g = (grouped(tensor, keys.shape[-3]) for tensor in (query, keys, values, above))
        if is_causal:
            causal.backward(q, k, v, g, hashed, into)
        else:
            whole.backward(q, k, v, g, hashed, mass, weighted, into)
        return value

    return forward, both
