"""torch's scaled_dot_product_attention as a dense peer, through its FlashAttention and its cuDNN kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from socket_gpu.bench.peers import Call, Tensors


def sdpa_calls(backend: str, tensors: Tensors) -> list[Call]:
    """Both memory orders, with grouped heads through `enable_gqa` or packed into the query's length."""
    attention = import_module("torch.nn.attention")
    choice = partial(attention.sdpa_kernel, getattr(attention.SDPBackend, backend))
    batch, num_qo_heads, dim = tensors.query.shape
    calls = []
    for order, (keys, values) in (("HND", tensors.heads_first), ("NHD", tensors.tokens_first)):
        num_kv_heads = keys.shape[1]
        separate = tensors.query.view(batch, num_qo_heads, 1, dim)
        packed = tensors.query.view(batch, num_kv_heads, num_qo_heads // num_kv_heads, dim)
        if num_qo_heads == num_kv_heads:
            calls.append(Call(order, _attend(separate, keys, values), choice))
        else:
            calls.append(Call(f"{order} enable_gqa", _attend(separate, keys, values, enable_gqa=True), choice))
            calls.append(Call(f"{order} packed", _attend(packed, keys, values), choice))
    return calls


def _attend(query: Any, keys: Any, values: Any, **options: bool) -> Callable[[], Any]:
    functional = import_module("torch.nn.functional")
    return partial(functional.scaled_dot_product_attention, query, keys, values, **options)
