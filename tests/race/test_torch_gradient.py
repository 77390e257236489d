"""Torch's gradients in float32 and bfloat16 beside the float64 reference, token by token, and faults that this sees."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'socket-theory[torch]'")

import torch

from socket_theory.core.hashing import Planes, SignHash
from socket_theory.core.rng import Key
from socket_theory.integrations.race_torch import causal, whole
from socket_theory.integrations.race_torch.buckets import Hash
from socket_theory.integrations.torch_layers import race_attention
from socket_theory.race.gradient import race_gradients
from socket_theory.race.gradient_scale import gradient_scale, gradient_tolerance

KEY, BETA = Key.from_seed(262144), 2.0
PLANES: Planes = SignHash(num_tables=4, num_planes=4, head_dim=128).draw(KEY)
INPUTS = ("query", "keys", "values", "planes", "beta")


def draw(tokens: int, num_qo_heads: int = 2) -> list[Any]:
    """Queries, keys and values of one head, and the gradient of the value, in float32 of which bfloat16 loses nothing.

    Vectors have length 6, so that most projections saturate and some do not; the values are not centred.
    """
    rng = KEY.generator()
    sizes = ((num_qo_heads, 0.5, 0.0), (1, 0.5, 0.0), (1, 1.0, 0.5), (num_qo_heads, 1.0, 0.0))
    arrays = (
        shift + size * rng.standard_normal((heads, tokens, 128), dtype=np.float32) for heads, size, shift in sizes
    )
    return [torch.from_numpy(array).bfloat16().float() for array in arrays]


def found(tensors: list[Any], is_causal: bool) -> dict[str, Any]:
    """Gradients by the layer, in float64."""
    *heads, above = tensors
    leaves = [heads[0], heads[1], heads[2], torch.tensor(PLANES.weights).float(), torch.tensor(BETA)]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    value = race_attention(*leaves, is_causal)
    return dict(zip(INPUTS, (g.double().numpy() for g in torch.autograd.grad(value, leaves, above)), strict=True))


def limits(tensors: list[Any], is_causal: bool) -> tuple[Any, Any]:
    """The reference's gradients and how far from them a result may be, entry by entry."""
    query, keys, values, above = (tensor.double().numpy() for tensor in tensors)
    reference, scale = (
        function(query, keys, values, PLANES, BETA, above, is_causal) for function in (race_gradients, gradient_scale)
    )
    return reference, gradient_tolerance(reference, scale, BETA)


def beyond(tensors: list[Any], is_causal: bool, wanted: tuple[Any, Any]) -> dict[str, float]:
    """The largest error of each gradient as a multiple of what is allowed."""
    reference, allowed = wanted
    result = found(tensors, is_causal)
    return {
        name: float((abs(result[name] - getattr(reference, name)) / getattr(allowed, name)).max()) for name in INPUTS
    }


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(
    ("tokens", "num_qo_heads"), [(1500, 2), pytest.param(2**18, 1, marks=pytest.mark.slow)], ids=["1500", "262144"]
)
def test_every_gradient_of_every_token_is_within_the_tolerance(tokens: int, num_qo_heads: int, is_causal: bool) -> None:
    tensors = draw(tokens, num_qo_heads)
    wanted = limits(tensors, is_causal)
    for dtype in (torch.float32, torch.bfloat16):
        ratios = beyond([tensor.to(dtype) for tensor in tensors], is_causal, wanted)
        print(dtype, ratios)
        assert max(ratios.values()) < 1


# A causal pass over 1500 tokens asks 12 times for features forward, then 6 times for keys and 6 times for queries.
@pytest.mark.parametrize(
    ("is_causal", "call", "name"),
    [(False, 0, "query"), (True, 12, "query"), (True, 18, "values")],
    ids=["of the sums", "of a prefix at a border", "of a suffix"],
)
def test_one_dropped_token_is_seen(is_causal: bool, call: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = draw(1500)
    wanted = limits(tensors, is_causal)
    features, calls = Hash.features, count()

    def without_one(hashed: Hash, vectors: Any) -> Any:
        made = features(hashed, vectors)
        if next(calls) == call:
            made[:, :, -1] = 0
        return made

    monkeypatch.setattr(Hash, "features", without_one)
    assert beyond(tensors, is_causal, wanted)[name] > 1


@pytest.mark.parametrize("is_causal", [False, True])
def test_a_missing_gradient_of_the_denominator_is_seen(is_causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = draw(1500)
    wanted = limits(tensors, is_causal)
    for module in (whole, causal):
        monkeypatch.setattr(module, "along_outputs", lambda features, towards, total: torch.zeros_like(total))
    ratios = beyond(tensors, is_causal, wanted)
    assert ratios["query"] > 1
    assert ratios["keys"] > 1
    assert ratios["values"] < 1


def test_a_prefix_in_place_of_a_suffix_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = draw(1500)
    wanted = limits(tensors, True)
    monkeypatch.setattr(causal, "reversed", iter, raising=False)
    ratios = beyond(tensors, True, wanted)
    assert ratios["query"] < 1
    assert ratios["keys"] > 1
    assert ratios["values"] > 1
