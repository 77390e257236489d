"""RACE attention as an operator of torch, with its gradient, so that compilers and exporters take it as one node."""

from __future__ import annotations

import math
from typing import Any

import torch

from socket_theory.core.checks import require_positive
from socket_theory.integrations.race_torch import causal, whole
from socket_theory.integrations.race_torch.buckets import Hash
from socket_theory.integrations.race_torch.chunks import blocks, compute_dtype, grouped
from socket_theory.integrations.race_torch.gradients import Gradients
from socket_theory.integrations.race_torch.kernels import Kernels
from socket_theory.integrations.race_torch.whole import empty_sums

STEEPEST = {torch.float64: 80.0, torch.float32: 30.0}
"""Largest beta * P by the dtype that is computed in: the least denominator is near exp(-2 beta P), and its inverse has
to leave room for the gradients."""


def steepest_beta(num_planes: int, dtype: Any) -> float:
    """Largest beta that is computed with in `dtype`."""
    return STEEPEST[dtype] / num_planes


def require_steepness(beta: float, num_planes: int, dtype: Any) -> float:
    """`beta` again, or ValueError if weights vanish in the dtype that is computed in."""
    steepest = steepest_beta(num_planes, dtype)
    if beta > steepest * (1 + torch.finfo(dtype).eps):  # the bound itself may have been rounded up
        raise ValueError(
            f"beta={beta:g} was given with num_planes={num_planes}, computed with in {dtype}: pass at most "
            f"{steepest:g}, beyond which weights vanish."
        )
    return beta


def _attend(query: Any, keys: Any, values: Any, planes: Any, beta: Any, is_causal: bool) -> tuple[Any, Any, Any]:
    """The value [..., Hq, T, E], and the sums that the gradient needs: A [G, F] and B [G, F, E] over all keys, or those
    of kernels, A [G, tiles + 1, F] and B [G, tiles + 1, F, E]."""
    if beta.device.type == "cpu":  # reading one on a GPU would wait for it
        require_steepness(require_positive("beta", float(beta)), planes.shape[1], compute_dtype(query.dtype))
    kernels = Kernels.of(query, keys, values, planes, is_causal)
    if kernels is not None:
        return kernels.attend(query, keys, values, planes, beta)
    with torch.autocast(query.device.type, enabled=False):
        hashed = Hash.of(planes, beta, compute_dtype(query.dtype))
        value = query.new_empty(*query.shape[:-1], values.shape[-1])
        q, k, v, into = (grouped(tensor, keys.shape[-3]) for tensor in (query, keys, values, value))
        mass, weighted = empty_sums(k, v, hashed)
        for part, at in blocks(q, hashed.num_features):
            (causal if is_causal else whole).attend(
                q[part], k[part], v[part], into[part], hashed, mass[at], weighted[at]
            )
    return value, mass, weighted


def _backward(
    query: Any,
    keys: Any,
    values: Any,
    planes: Any,
    beta: Any,
    above: Any,
    mass: Any,
    weighted: Any,
    is_causal: bool,
    planes_too: bool,
) -> tuple[Any, Any, Any, Any, Any]:
    """Gradients of query, keys, values, planes (zero unless `planes_too`, which no kernel computes) and beta."""
    kernels = Kernels.of(query, keys, values, planes, is_causal)
    if kernels is not None and not planes_too:
        q, k, v, d_beta = kernels.differentiate(query, keys, values, planes, beta, above, mass, weighted)
        return q, k, v, torch.zeros_like(planes), d_beta
    with torch.autocast(query.device.type, enabled=False):
        hashed = Hash.of(planes, beta, compute_dtype(query.dtype))
        into = Gradients.like(query, keys, values, hashed, planes_too)
        q, k, v, g = (grouped(tensor, keys.shape[-3]) for tensor in (query, keys, values, above))
        for part, at in blocks(q, hashed.num_features):
            heads = q[part], k[part], v[part], g[part], hashed
            if is_causal:
                causal.backward(*heads, into.part(part))
            else:
                held = (mass[at], weighted[at]) if kernels is None else whole.sums(k[part], v[part], hashed)
                whole.backward(*heads, *held, into.part(part))
        d_planes = torch.zeros_like(planes)
        if into.planes is not None:
            d_planes.copy_(into.planes.unflatten(0, (planes.shape[1], -1)).transpose(0, 1))
        found = (place.flatten(-4, -3) for place in (into.query, into.keys, into.values))
        return (*found, d_planes, into.beta.to(beta.dtype))


def _like_attend(query: Any, keys: Any, values: Any, planes: Any, beta: Any, is_causal: bool) -> tuple[Any, Any, Any]:
    value, kernels = (
        query.new_empty(*query.shape[:-1], values.shape[-1]),
        Kernels.of(query, keys, values, planes, is_causal),
    )
    if kernels is not None:
        return value, *kernels.empty_sums(query)
    groups = math.prod(keys.shape[:-2])
    dtype, features = compute_dtype(query.dtype), planes.shape[0] * 2 ** planes.shape[1]
    mass = query.new_empty(groups, features, dtype=dtype)
    return value, mass, query.new_empty(groups, features, values.shape[-1], dtype=dtype)


def _like_backward(query: Any, keys: Any, values: Any, planes: Any, beta: Any, *others: Any) -> tuple[Any, ...]:
    return (
        *(heads.new_empty(heads.shape) for heads in (query, keys, values)),
        torch.empty_like(planes),
        torch.empty_like(beta),
    )


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    *tensors, ctx.is_causal = inputs
    _, mass, weighted = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(mass, weighted)
    ctx.save_for_backward(*tensors, mass, weighted)


def _differentiate(ctx: Any, above: Any, *_: Any) -> tuple[Any, ...]:
    if above is None:  # as zeros, which are not made here, since those of the sums would be as large as the state
        return (None,) * 6
    *tensors, mass, weighted = ctx.saved_tensors
    planes_too = ctx.needs_input_grad[3]
    found = backward(*tensors, above, mass, weighted, ctx.is_causal, planes_too)
    return (
        *(gradient if needed else None for gradient, needed in zip(found, ctx.needs_input_grad, strict=False)),
        None,
    )


attend = torch.library.custom_op(
    "socket_theory::race_attention",
    _attend,
    mutates_args=(),
    schema="(Tensor query, Tensor keys, Tensor values, Tensor planes, Tensor beta, bool is_causal)"
    " -> (Tensor, Tensor, Tensor)",
)
attend.register_fake(_like_attend)
attend.register_autograd(_differentiate, setup_context=_remember)
backward = torch.library.custom_op(
    "socket_theory::race_attention_backward",
    _backward,
    mutates_args=(),
    schema="(Tensor query, Tensor keys, Tensor values, Tensor planes, Tensor beta, Tensor above, Tensor mass,"
    " Tensor weighted, bool is_causal, bool planes_too) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
backward.register_fake(_like_backward)


def _refuse(ctx: Any, *above: Any) -> Any:
    raise RuntimeError("RACE attention has no second derivative: do not pass create_graph=True.")


backward.register_autograd(_refuse)
