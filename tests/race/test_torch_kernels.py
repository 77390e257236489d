"""RACE attention of torch tensors by kernels: which tensors they take, and that torch may do with them what it does.

The kernels are those of a GPU, built for a CPU, and take tensors there.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'socket-theory[torch]'")

import torch

from socket_gpu.race.operations import CupySequences
from socket_gpu.race.sequences import RaceSequences
from socket_theory.core.array_types import to_native
from socket_theory.core.hashing import SignHash
from socket_theory.core.rng import Key
from socket_theory.integrations.race_torch import kernels
from socket_theory.integrations.race_torch.torch_operator import attend, backward
from socket_theory.integrations.torch_layers import RaceAttention, race_attention

KEY = Key.from_seed(41)


class OnCpu(CupySequences):
    """The kernels over NumPy's arrays, and the passes that were made."""

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        self.made: list[RaceSequences] = []

    def sequences(self, *given: Any) -> RaceSequences:
        *arrays, causal, empty = given

        def own(array: Any) -> Any:
            return array.view(self.cupy.ndarray)

        made = RaceSequences(*map(own, arrays), causal, lambda *named: own(empty(*named)))
        self.made.append(made)
        back = made.backward
        made.backward = lambda above: back(own(above))
        return made


@pytest.fixture
def on_cpu(gpu_on_cpu: Any, monkeypatch: pytest.MonkeyPatch) -> OnCpu:
    own = OnCpu(gpu_on_cpu.cupy)
    monkeypatch.setattr(kernels, "kernels_on", lambda device_type: own)
    monkeypatch.setattr(kernels.Kernels, "_current", lambda of: nullcontext())
    return own


def inputs(*, dtype: Any = torch.bfloat16, tokens: int = 70, head_dim: int = 64, batch: tuple[int, ...] = (1,)) -> Any:
    """Queries of 4 heads as views of [..., tokens, heads, D], keys and values of 2, planes (4 tables of 4) and beta."""
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(*batch, tokens, 4, head_dim, generator=draw).transpose(-2, -3)
    keys, values = (torch.randn(*batch, 2, tokens, head_dim, generator=draw) for _ in range(2))
    planes = torch.tensor(SignHash(4, 4, head_dim).draw(KEY).weights).float()
    tensors = [heads.to(dtype) for heads in (query, keys, values)]
    return *(heads.requires_grad_() for heads in tensors), planes, torch.tensor(1.5, requires_grad=True)


def differentiated(tensors: Any, causal: bool) -> list[Any]:
    """The value, and the gradients of queries, keys, values and beta."""
    value = race_attention(*tensors, causal)
    above = torch.randn(value.shape, generator=torch.Generator().manual_seed(1)).to(value.dtype)
    query, keys, values, _, beta = tensors
    return [value.detach(), *torch.autograd.grad(value, (query, keys, values, beta), above)]


@pytest.mark.parametrize("causal", [False, True])
def test_the_bits_are_those_of_the_kernels_on_the_tensors_own_memory(on_cpu: OnCpu, causal: bool) -> None:
    tensors = inputs(batch=(2,))
    found = differentiated(tensors, causal)
    assert len(on_cpu.made) == 2
    for passes in on_cpu.made:
        given = passes.of.query, passes.of.keys, passes.of.values
        assert [array.data.ptr for array in given] == [tensor.data_ptr() for tensor in tensors[:3]]
    native = [to_native("", tensor.detach()).view(on_cpu.cupy.ndarray) for tensor in tensors]
    passes = RaceSequences(*native, causal)
    above = torch.randn(found[0].shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    passes.forward()
    passes.backward(to_native("", above).view(on_cpu.cupy.ndarray))
    names = ("value", "d_query", "d_keys", "d_values", "d_beta")
    for name, tensor in zip(names, found, strict=True):
        np.testing.assert_array_equal(to_native(name, tensor), np.asarray(getattr(passes, name)))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("batch", [(), (2, 1)])
def test_results_are_those_of_the_passes_in_torch(on_cpu: OnCpu, batch: Any, causal: bool) -> None:
    tensors = inputs(batch=batch, dtype=torch.float32)
    found, (query, keys, values, planes, beta) = differentiated(tensors, causal), tensors
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "kernels_on", lambda device_type: None)
        expected = differentiated((query, keys, values, planes, beta), causal)
    assert len(on_cpu.made) == 2
    for ours, other in zip(found, expected, strict=True):
        assert ours.shape == other.shape
        cancels = 1e-3 if other.ndim == 0 else 0  # beta's gradient is what is left of a sum of thousands of terms
        assert (ours - other).abs().max() <= 1e-4 * other.abs().max() + cancels


def test_rows_that_are_not_aligned_are_copied(on_cpu: OnCpu) -> None:
    query, keys, values, planes, beta = inputs(dtype=torch.float16)
    expected = race_attention(query, keys, values, planes, beta)
    wider = torch.zeros(1, 2, 70, 71, dtype=torch.float16)
    wider[..., 5:69] = values
    swapped = keys.transpose(2, 3).contiguous().transpose(2, 3)
    found = race_attention(query, swapped, wider[..., 5:69], planes.double(), beta.double())
    assert torch.equal(found, expected)
    # The gradient of a sum is one number that no row holds.
    (gradient,) = torch.autograd.grad(race_attention(query, keys, values, planes, beta).sum(), values)
    assert bool(torch.isfinite(gradient).all())


def test_what_the_kernels_do_not_take_goes_the_other_way(on_cpu: OnCpu) -> None:
    query, keys, values, planes, beta = inputs()

    def runs(*given: Any, causal: bool = False) -> int:
        before = len(on_cpu.made)
        race_attention(*given, beta, causal)
        return len(on_cpu.made) - before

    assert runs(query, keys, values, planes) == 1
    assert runs(query[..., :9, :], keys, values, planes) == 1
    assert runs(query[..., :9, :], keys, values, planes, causal=True) == 0
    assert runs(query, keys, values[..., :32], planes) == 0
    assert runs(query.double(), keys.double(), values.double(), planes) == 0
    assert runs(query, keys, values, planes.repeat(2, 1, 1)) == 1
    assert runs(query, keys, values, planes.repeat(3, 1, 1)) == 0


@pytest.mark.parametrize("causal", [False, True])
def test_planes_that_learn_have_the_gradients_of_the_passes_in_torch(on_cpu: OnCpu, causal: bool) -> None:
    *heads, planes, beta = inputs(dtype=torch.float32)
    leaves = [*heads, planes.requires_grad_(), beta]
    found = torch.autograd.grad(race_attention(*leaves, causal).square().sum(), leaves)
    assert len(on_cpu.made) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "kernels_on", lambda device_type: None)
        expected = torch.autograd.grad(race_attention(*leaves, causal).square().sum(), leaves)
    for ours, other in zip(found, expected, strict=True):
        assert (ours - other).abs().max() <= 1e-4 * other.abs().max()


@pytest.mark.parametrize("causal", [False, True])
def test_torch_accepts_the_operators_and_compiles_them(on_cpu: OnCpu, causal: bool) -> None:
    tensors = inputs(tokens=9)
    torch.library.opcheck(attend, (*tensors, causal))
    plain = [tensor.detach() for tensor in tensors]
    value, mass, weighted = attend(*plain, causal)
    torch.library.opcheck(backward, (*plain, value, mass, weighted, causal, False))
    layer = RaceAttention(64, key=KEY, causal=causal)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for tokens in (20, 130):
        leaves = [*inputs(tokens=tokens)[:3], layer.log_beta]
        found, expected = (
            (value, *torch.autograd.grad(value.float().square().sum(), leaves))
            for value in (compiled(*leaves[:3]), layer(*leaves[:3]))
        )
        assert all(torch.equal(ours, other) for ours, other in zip(found, expected, strict=True))


def test_without_a_usable_gpu_there_are_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(kind: str) -> Any:
        raise RuntimeError("no device")

    kernels.kernels_on.cache_clear()
    monkeypatch.setattr(kernels, "resolve_backend", missing)
    assert kernels.kernels_on("cuda") is None
    assert kernels.kernels_on("cpu") is None
    kernels.kernels_on.cache_clear()
