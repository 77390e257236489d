"""Other attention beside RACE's kernels, causal and in bfloat16: how each peer is called."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from socket_gpu.bench.shape import SEED
from socket_gpu.race.exact import wide
from socket_gpu.race.exact_law import Law
from socket_gpu.race.inputs import SequenceInputs
from socket_theory.core.array_types import from_native, to_native

Weights = Callable[[Any], Any]
FEATURES = 64


@dataclass(frozen=True, eq=False)
class Call:
    """Ways to run a peer once: `forward()` gives the value, `both()` also takes the gradients.

    `head(value)` is the value [N, E] of the first head. `expected(rows)` gives, for tokens [s] of that head, the
    weights [s, n] of keys [n, ..] in float64, the keys [N, ..] and the values [N, E], as they lie on the device; the
    value is the mean under these weights, or, unless `normalised`, the sum.
    """

    forward: Callable[[], Any]
    both: Callable[[], Any]
    head: Callable[[Any], Any]
    expected: Callable[[Any], tuple[Weights, Any, Any]]
    normalised: bool = True
    choice: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass(frozen=True)
class Peer:
    """A kernel to measure, the power of the tokens by which its time grows, and how many elements a tensor may have.

    An address that overflows ends the whole process, so a kernel that has some of 32 bits is not asked for more.
    """

    method: str
    power: float
    call: Callable[[SequenceInputs], Call]
    settings: dict[str, Any]
    most_elements: float = math.inf


def softmax_call(backend: str, inputs: SequenceInputs) -> Call:
    """torch's scaled_dot_product_attention through one of its kernels."""
    torch, attention = import_module("torch"), import_module("torch.nn.attention")
    leaves = _leaves(inputs, lambda tensor: tensor)
    attend = partial(torch.nn.functional.scaled_dot_product_attention, *leaves, is_causal=True)
    scale = inputs.query.shape[-1] ** -0.5

    def expected(rows: Any) -> tuple[Weights, Any, Any]:
        asked = wide(inputs.query[0, 0, rows])
        # Of standard normal queries and keys: no logit is near where exp overflows in float64.
        return lambda keys: _exp(scale * (asked @ keys.T)), inputs.keys[0, 0], inputs.values[0, 0]

    choice = partial(attention.sdpa_kernel, getattr(attention.SDPBackend, backend))
    return _differentiated(torch, attend, leaves, lambda value: value[0, 0], expected, choice=choice)


def linear_call(inputs: SequenceInputs) -> Call:
    """flash-linear-attention's chunk_linear_attn over random features, without a normaliser: the scan alone."""
    torch, attend = import_module("torch"), _chunk_linear_attn()
    _, heads, tokens, _ = inputs.query.shape
    draws = torch.Generator("cuda").manual_seed(SEED)
    size = (1, tokens, heads, FEATURES)
    asked, held = (torch.rand(size, generator=draws, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    values = from_native(inputs.values, "torch-cuda").transpose(1, 2).contiguous()
    leaves = [tensor.requires_grad_() for tensor in (asked, held, values)]

    def expected(rows: Any) -> tuple[Weights, Any, Any]:
        q, k = (to_native("features", tensor.detach()[0, :, 0]) for tensor in (asked, held))
        mine = wide(q[rows])
        return lambda keys: mine @ keys.T, k, inputs.values[0, 0]

    run = partial(_value_of, attend, *leaves, scale=1.0, normalize=False)
    return _differentiated(torch, run, leaves, lambda value: value[0, :, 0], expected, normalised=False)


def featured_call(inputs: SequenceInputs) -> Call:
    """The same kernels under RACE's feature maps, which torch computes, with their normaliser: RACE's value."""
    torch, attend = import_module("torch"), _chunk_linear_attn()
    leaves = _leaves(inputs, lambda tensor: tensor.transpose(1, 2).contiguous())
    planes, beta = (from_native(array, "torch-cuda") for array in (inputs.planes, inputs.beta))

    def run() -> Any:
        query, keys, values = leaves
        asked, held = (_features(torch, tensor, planes, beta) for tensor in (query, keys))
        return attend(asked, held, values, scale=1.0, normalize=True)[0]

    return _differentiated(torch, run, leaves, lambda value: value[0, :, 0], partial(_race_weights, inputs))


def torch_call(inputs: SequenceInputs) -> Call:
    """RACE's passes in torch, without kernels of ours."""
    from socket_theory.evaluate.race_passes import torch_passes

    tensors = (inputs.query, inputs.keys, inputs.values, inputs.planes, inputs.beta)
    query, keys, values, planes, beta = (from_native(array, "torch-cuda") for array in tensors)
    forward, both = torch_passes(query, keys, values, planes, beta, is_causal=True)
    return Call(forward, both, lambda value: value[0, 0], partial(_race_weights, inputs))


PEERS = (
    Peer("sdpa_flash", 2.0, partial(softmax_call, "FLASH_ATTENTION"), {}),
    Peer("sdpa_cudnn", 2.0, partial(softmax_call, "CUDNN_ATTENTION"), {}),
    Peer("linear", 1.0, linear_call, {"features": FEATURES}, 2**31 - 1),
    Peer("linear_race", 1.0, featured_call, {"features": FEATURES}, 2**31 - 1),
    Peer("race_torch", 1.0, torch_call, {}),
)


def _differentiated(
    torch: Any, attend: Callable[[], Any], leaves: list[Any], head: Callable[[Any], Any], expected: Any, **options: Any
) -> Call:
    """A call whose gradients are autograd's, for an incoming gradient of standard normal numbers."""
    towards: list[Any] = []

    def forward() -> Any:
        with torch.no_grad():
            return attend()

    def both() -> Any:
        value = attend()
        if not towards:
            towards.append(torch.randn_like(value))
        torch.autograd.grad(value, leaves, towards[0])
        return value

    return Call(forward, both, head, expected, **options)


def _leaves(inputs: SequenceInputs, laid_out: Callable[[Any], Any]) -> list[Any]:
    """Copies of query, keys and values in the memory order that a peer likes."""
    tensors = (from_native(array, "torch-cuda") for array in (inputs.query, inputs.keys, inputs.values))
    return [laid_out(tensor).clone().requires_grad_() for tensor in tensors]


def _chunk_linear_attn() -> Callable[..., Any]:
    """Raises ImportError where flash-linear-attention is not installed."""
    attend: Callable[..., Any] = import_module("fla.ops.linear_attn").chunk_linear_attn
    return attend


def _value_of(attend: Callable[..., Any], *tensors: Any, **options: Any) -> Any:
    return attend(*tensors, **options)[0]


def _features(torch: Any, vectors: Any, planes: Any, beta: Any) -> Any:
    """phi [1, N, H, L 2^P] in bfloat16 of vectors [1, N, H, D], in float32 before it is rounded."""
    steep = 2 * beta * torch.tanh(torch.einsum("...d,lpd->...lp", vectors.float(), planes))
    up, down = torch.sigmoid(steep), torch.sigmoid(-steep)
    features = torch.stack([down[..., 0], up[..., 0]], dim=-1)
    for p in range(1, planes.shape[1]):
        features = torch.cat([features * down[..., p : p + 1], features * up[..., p : p + 1]], dim=-1)
    return features.flatten(-2).to(vectors.dtype)


def _race_weights(inputs: SequenceInputs, rows: Any) -> tuple[Weights, Any, Any]:
    law = Law.of(inputs.planes, float(inputs.beta))
    asked = law.features(wide(inputs.query[0, 0, rows]))
    return lambda keys: asked @ law.features(keys).T, inputs.keys[0, 0], inputs.values[0, 0]


def _exp(array: Any) -> Any:
    return import_module("cupy").exp(array)
