"""Is an attention right on this device? Its outputs and gradients beside those of the same in float64 on the CPU."""

from __future__ import annotations

from typing import Any

import torch

from socket_theory.core.rng import Key
from socket_theory.evaluate.learning.kinds import Kind

ALLOWED = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Of the size of the outputs, root mean square; of a gradient three times that, as it meets more roundings."""


def require_right(kind: Kind, head_dim: int, tokens: int, device: Any, dtype: Any) -> float:
    """The largest error over what is allowed, at most 1, of two heads of normal vectors.

    Raises
    ------
    ValueError
        If an output or a gradient is further off, or NaN.
    """
    draw = torch.Generator().manual_seed(0)
    given = [torch.randn(1, 2, tokens, head_dim, generator=draw).to(dtype) for _ in range(4)]
    attention = kind.attention(head_dim, Key.from_seed(0))
    exact = _results(attention, [tensor.double() for tensor in given])
    found = _results(attention.to(device), [tensor.to(device) for tensor in given])
    worst = 0.0
    for name, ours, other in zip(("output", "query", "keys", "values"), found, exact, strict=True):
        allowed = ALLOWED[dtype] * (1 if name == "output" else 3)
        error = float((ours.double().cpu() - other).norm() / other.norm())
        if not error <= allowed:
            what = "outputs" if name == "output" else f"gradients of the {name}"
            raise ValueError(f"the {what} of {kind} are off by {error:.3g} on {device}, where {allowed:g} is allowed.")
        worst = max(worst, error / allowed)
    return worst


def _results(attention: Any, given: list[Any]) -> list[Any]:
    """The output, and the gradients of the first three tensors for the fourth as that of the output."""
    *heads, above = given
    heads = [tensor.requires_grad_() for tensor in heads]
    value = attention(*heads)
    return [value.detach(), *torch.autograd.grad(value, heads, above)]
