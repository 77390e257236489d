"""torch's backward pass of RACE attention against the float64 reference, within the tolerance of kernels (R8)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'socket-theory[torch]'")

import torch

from socket_theory.core.hashing import Planes
from socket_theory.core.rng import Key
from socket_theory.integrations.torch_layers import race_attention
from socket_theory.race.gradient import race_gradients
from socket_theory.race.gradient_scale import gradient_scale, gradient_tolerance

SHAPES = {"query": (1, 4, 200, 16), "keys": (1, 2, 300, 16), "values": (1, 2, 300, 9), "planes": (3, 3, 16)}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("beta", [0.5, 5.0])
@pytest.mark.parametrize(
    ("dtype", "share"), [(torch.float64, 1e-6), (torch.float32, 0.02), (torch.bfloat16, 1.0)], ids=str
)
def test_torch_has_the_gradients_of_the_reference(causal: bool, beta: float, dtype: Any, share: float) -> None:
    rng = Key.from_seed(20).generator()
    given = {name: torch.tensor(rng.standard_normal(shape)).to(dtype) for name, shape in SHAPES.items()}
    above = torch.tensor(rng.standard_normal((1, 4, 200, 9))).to(dtype)
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in given.items()}
    leaves["beta"] = torch.tensor(beta, dtype=torch.float64, requires_grad=True)
    race_attention(**leaves, causal=causal).backward(above)
    query, keys, values, planes = (tensor.double().numpy() for tensor in given.values())
    arguments = query, keys, values, Planes(planes), beta, above.double().numpy(), causal
    right, scale = race_gradients(*arguments), gradient_scale(*arguments)
    allowed = gradient_tolerance(right, scale, beta)
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        off = np.abs(leaf.grad.double().numpy() - getattr(right, name))
        assert (off <= share * getattr(allowed, name)).all(), name
