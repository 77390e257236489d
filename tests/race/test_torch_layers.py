"""RACE attention in torch: its values and gradients are the dense form's, and torch may do with it what it does."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("torch", reason="pip install 'socket-theory[torch]'")

import torch

from socket_theory.core.hashing import Planes, SignHash
from socket_theory.core.rng import Key
from socket_theory.integrations.race_torch import chunks
from socket_theory.integrations.race_torch.torch_operator import attend, backward
from socket_theory.integrations.torch_layers import RaceAttention, race_attention
from socket_theory.race import attention as reference

KEY = Key.from_seed(14)
# batch, Hq, Hkv, T, N: several chunks and a border, few queries behind many keys, and a KV head for all.
SHAPES = [(2, 4, 2, 300, 300), (1, 2, 2, 5, 700), (2, 2, 1, 150, 401)]


def dense(query: Any, keys: Any, values: Any, planes: Any, beta: Any, causal: bool) -> Any:
    """The definition: a softmax over all corners for the features, and a matrix of weights."""
    bits = torch.arange(2 ** planes.shape[1])[:, None] >> torch.arange(planes.shape[1])
    corners = ((bits & 1) * 2 - 1).to(query.dtype)

    def features(vectors: Any) -> Any:
        t = torch.tanh(torch.einsum("...nd,lpd->...nlp", vectors, planes))
        return torch.softmax(beta * torch.einsum("...nlp,rp->...nlr", t, corners), -1).flatten(-2)

    group = query.shape[-3] // keys.shape[-3]
    keys, values = (heads.repeat_interleave(group, -3) for heads in (keys, values))
    weights = features(query) @ features(keys).mT
    if causal:
        weights = weights.tril(keys.shape[-2] - query.shape[-2])
    return weights @ values / weights.sum(-1, keepdim=True)


def inputs(shape: tuple[int, ...], head_dim: int = 16, dtype: Any = torch.float64, seed: int = 0) -> list[Any]:
    """Queries in a model's own layout, keys, values, planes (4 tables of 3) and beta; all require a gradient."""
    batch, num_qo_heads, num_kv_heads, asked, held = shape
    draw = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, asked, num_qo_heads, head_dim, generator=draw, dtype=torch.float64).transpose(1, 2)
    keys = torch.randn(batch, num_kv_heads, held, head_dim, generator=draw, dtype=torch.float64)
    values = torch.randn(batch, num_kv_heads, held, 9, generator=draw, dtype=torch.float64)
    planes = torch.tensor(SignHash(4, 3, head_dim).draw(KEY).weights)
    tensors = [*(heads.to(dtype) for heads in (query, keys, values)), planes, torch.tensor(1.7, dtype=torch.float64)]
    return [tensor.requires_grad_() for tensor in tensors]


def with_gradients(function: Any, tensors: list[Any], causal: bool) -> list[Any]:
    """The value, and the gradient of every tensor for one fixed gradient of the value."""
    value = function(*tensors, causal)
    above = torch.randn(value.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return [value.detach(), *torch.autograd.grad(value, tensors, above.to(value.dtype))]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_dense_form(shape: tuple[int, ...], causal: bool) -> None:
    tensors = inputs(shape)
    wanted = with_gradients(dense, tensors, causal)
    for ours, other in zip(with_gradients(race_attention, tensors, causal), wanted, strict=True):
        assert (ours - other).abs().max() <= 1e-11 * other.abs().max()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_those_of_the_reference(shape: tuple[int, ...], causal: bool) -> None:
    query, keys, values, planes, beta = (tensor.detach() for tensor in inputs(shape))
    arrays = (tensor.numpy() for tensor in (query, keys, values))
    wanted = reference.race_attention(*arrays, Planes(planes.numpy()), float(beta), causal).value
    found = race_attention(query, keys, values, planes, beta, causal).numpy()
    assert abs(found - wanted).max() <= 1e-12 * abs(wanted).max()


@pytest.mark.parametrize("causal", [False, True])
def test_a_chunk_of_any_size_gives_the_same(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = inputs(SHAPES[2])
    wanted = with_gradients(race_attention, tensors, causal)
    monkeypatch.setattr(chunks, "LEAST", 1)
    for size in (2, 14, 302):
        monkeypatch.setattr(chunks, "ON_A_CPU", size)
        for ours, other in zip(with_gradients(race_attention, tensors, causal), wanted, strict=True):
            assert (ours - other).abs().max() <= 1e-11 * other.abs().max()


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_those_of_small_steps(causal: bool) -> None:
    tensors = inputs((1, 2, 1, 3, 4), head_dim=3)
    assert torch.autograd.gradcheck(lambda *given: race_attention(*given, causal), tensors)


# A saturated projection is where 1 - tanh^2 is a difference of equal numbers in float32.
@pytest.mark.parametrize(
    ("dtype", "allowed"), [(torch.float32, 2e-5), (torch.bfloat16, 2**-8), (torch.float16, 2**-10)]
)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_narrow_dtypes_lose_their_own_rounding_only(dtype: Any, allowed: float, causal: bool, factor: float) -> None:
    tensors = inputs(SHAPES[0], dtype=dtype)
    with torch.no_grad():
        tensors[0] *= factor
        tensors[1] *= factor
    wide = [tensor.detach().double().requires_grad_() for tensor in tensors]
    above = torch.randn(2, 4, 300, 9, generator=torch.Generator().manual_seed(1)).to(dtype)
    value, wanted = race_attention(*tensors, causal), dense(*wide, causal)
    pairs = zip(
        [value, *torch.autograd.grad(value, tensors, above)],
        [wanted, *torch.autograd.grad(wanted, wide, above.double())],
        strict=True,
    )
    for (ours, other), given in zip(pairs, [tensors[0], *tensors], strict=True):
        assert ours.dtype == given.dtype
        assert ((ours - other).abs() <= allowed * other.abs() + 2e-5 * other.abs().amax()).all()


def test_autocast_does_not_narrow_the_sums() -> None:
    tensors = inputs(SHAPES[0], dtype=torch.float32)
    wanted = with_gradients(race_attention, tensors, True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = with_gradients(race_attention, tensors, True)
    assert all(torch.equal(ours, other) for ours, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("causal", [False, True])
def test_what_is_kept_for_the_backward_pass_is_the_inputs_and_one_state(causal: bool) -> None:
    tensors, kept = inputs((1, 2, 2, 3000, 3000), dtype=torch.float32), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        race_attention(*tensors, causal)
    given = {tensor.data_ptr() for tensor in tensors}
    assert sum(tensor.nbytes for tensor in kept if tensor.data_ptr() not in given) == 2 * 32 * (9 + 1) * 4


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torch_accepts_the_operators(causal: bool, dtype: Any) -> None:
    tensors = inputs((1, 4, 2, 6, 7), dtype=dtype)
    torch.library.opcheck(attend, (*tensors, causal))
    value, mass, weighted = attend(*(tensor.detach() for tensor in tensors), causal)
    plain = [tensor.detach() for tensor in tensors]
    torch.library.opcheck(backward, (*plain, value, mass, weighted, causal, True))


@pytest.mark.parametrize("causal", [False, True])
def test_compiled_is_the_same_in_one_graph(causal: bool) -> None:
    layer = RaceAttention(16, key=KEY, num_planes=3, causal=causal)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for shape in ((2, 4, 2, 20, 20), (2, 4, 2, 30, 30)):
        query, keys, values, *_ = inputs(shape, dtype=torch.float32)
        tensors = [query, keys, values, layer.log_beta]
        found, wanted = (
            (value, *torch.autograd.grad(value.square().sum(), tensors))
            for value in (compiled(query, keys, values), layer(query, keys, values))
        )
        assert all(torch.equal(ours, other) for ours, other in zip(found, wanted, strict=True))


def test_earlier_causal_rows_do_not_change_by_a_bit_with_later_tokens() -> None:
    query, keys, values, planes, beta = (tensor.detach() for tensor in inputs((1, 2, 1, 600, 600), dtype=torch.float32))
    before = race_attention(query, keys, values, planes, beta, True)
    for tensor in (query, keys, values):
        tensor[..., 300:, :] *= -3
    after = race_attention(query, keys, values, planes, beta, True)
    assert torch.equal(before[..., :300, :], after[..., :300, :])
    assert not torch.equal(before[..., 300:, :], after[..., 300:, :])


def test_equal_values_come_back_and_send_no_gradient_to_queries_and_keys() -> None:
    query, keys, values, planes, beta = inputs(SHAPES[0])
    constant = torch.ones_like(values)
    value = race_attention(query, keys, constant, planes, beta, True)
    assert torch.allclose(value, torch.ones_like(value), atol=1e-12)
    for gradient in torch.autograd.grad(value.square().sum(), (query, keys, planes, beta)):
        assert gradient.abs().max() < 1e-11


def test_the_module_learns_beta_and_keeps_its_planes() -> None:
    layer, teacher = (RaceAttention(16, key=KEY, num_planes=3, beta=beta, causal=True) for beta in (1.0, 4.0))
    query, keys, values, *_ = (tensor.detach() for tensor in inputs((1, 2, 1, 64, 64), dtype=torch.float32))
    wanted = teacher(query, keys, values).detach()
    assert [name for name, _ in layer.named_parameters()] == ["log_beta"]
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(layer(query, keys, values), wanted).backward()
        optimizer.step()
    assert float(layer.beta.detach()) == pytest.approx(4.0, rel=0.05)
    assert torch.equal(layer.planes, torch.tensor(SignHash(4, 3, 16).draw(KEY).weights).float())
    other = RaceAttention(16, key=KEY.fold_in("layer", 1), num_planes=3)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.planes, layer.planes)
    assert str(teacher) == "RaceAttention(head_dim=16, num_planes=3, num_tables=4, beta=4, causal=True)"
    assert layer.bfloat16()(*(tensor.bfloat16() for tensor in (query, keys, values))).dtype == torch.bfloat16


@pytest.mark.parametrize("num_planes", range(1, 9))
def test_the_largest_beta_is_accepted_and_learned_from(num_planes: int) -> None:
    layer = RaceAttention(16, key=KEY, num_planes=num_planes, num_tables=2, beta=30 / num_planes)
    query, keys, values, *_ = inputs((1, 2, 1, 20, 20), dtype=torch.float32)
    layer(query, keys, values).square().sum().backward()
    assert float(layer.beta.detach()) == pytest.approx(30 / num_planes, rel=1e-6)
    assert float(layer.log_beta.grad) != 0


@pytest.mark.parametrize(
    ("log_beta", "beta"), [(-1e4, 1e-6), (-20.0, 1e-6), (0.5, math.exp(0.5)), (3.0, 10), (1e4, 10)]
)
def test_beta_stays_within_its_bounds_and_can_come_back(log_beta: float, beta: float) -> None:
    layer = RaceAttention(16, key=KEY, num_planes=3)
    torch.nn.init.constant_(layer.log_beta, log_beta)
    query, keys, values, *_ = inputs((1, 2, 1, 20, 20), dtype=torch.float32)
    assert bool(torch.isfinite(layer(query, keys, values)).all())
    layer.beta.backward()
    assert float(layer.beta.detach()) == pytest.approx(beta, rel=1e-6)
    assert float(layer.log_beta.grad) == pytest.approx(beta, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_beta_learns_by_small_steps_in_a_model_of_16_bits(dtype: Any) -> None:
    layer = torch.nn.Sequential(RaceAttention(16, key=KEY, num_planes=3, beta=4.0)).to(dtype)[0]
    assert layer.log_beta.dtype == layer.planes.dtype == torch.float32
    assert layer.double().log_beta.dtype == torch.float64
    layer = layer.float()
    query, keys, values = (tensor.detach().to(dtype) for tensor in inputs((1, 2, 1, 64, 64))[:3])
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-4)
    start = float(layer.log_beta.detach())
    for _ in range(3):
        optimizer.zero_grad()
        layer(query, keys, values).float().square().sum().backward()
        optimizer.step()
    assert abs(float(layer.log_beta.detach()) - start) == pytest.approx(3e-4, rel=0.2)


@pytest.mark.parametrize("causal", [False, True])
def test_a_second_derivative_is_refused(causal: bool) -> None:
    tensors = inputs((1, 2, 1, 6, 7))
    gradients = torch.autograd.grad(race_attention(*tensors, causal).sum(), tensors, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative: do not pass create_graph=True"):
        gradients[0].sum().backward()


def test_blocks_are_all_heads_once_and_in_order() -> None:
    for shape, features in (
        ((3, 5, 2, 9, 4), 64),
        ((3, 5, 2, 9, 4), 4096),
        ((64, 8, 1, 9, 4), 1024),
        ((7, 1, 9, 4), 8),
    ):
        heads = torch.arange(math.prod(shape[:-3])).reshape(shape[:-3])
        parts = list(chunks.blocks(torch.empty(shape), features))
        assert torch.equal(torch.cat([heads[index].flatten() for index, _ in parts]), heads.flatten())
        for index, place in parts:
            assert torch.equal(heads[index].flatten(), heads.flatten()[place])
            held = (place.stop - place.start) * shape[-3] * chunks.LEAST * max(features, chunks.USUAL)
            assert held <= chunks.ON_A_CPU * chunks.USUAL


def refused(pattern: str, kind: type[Exception] = ValueError, **changed: Any) -> None:
    names = ("query", "keys", "values", "planes", "beta")
    given = dict(zip(names, inputs((1, 4, 2, 5, 6), dtype=torch.float32), strict=True)) | changed
    with pytest.raises(kind, match=pattern):
        race_attention(**given)


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    query, keys, values, planes, _ = inputs((1, 4, 2, 5, 6), dtype=torch.float32)
    refused("query has dtype torch.float32 and keys torch.bfloat16: pass one dtype", TypeError, keys=keys.bfloat16())
    refused("query has dtype int64", TypeError, query=query.long())
    refused("keys is of type ndarray: pass a torch.Tensor", TypeError, keys=keys.detach().numpy())
    refused("query is on cpu and values on meta: pass values.to", values=values.to("meta"))
    refused("query is on cpu and planes on meta", planes=planes.to("meta"))
    refused("planes is of type Planes: pass a torch.Tensor", TypeError, planes=SignHash(4, 3, 16).draw(KEY))
    refused(r"none 0", keys=keys[..., :0, :])
    refused(r"query \[4, 5\] was given|shape \[4, 5\]", query=query[0, ..., 0])
    refused("do not fit", keys=keys[..., :8])
    refused("do not fit", values=values[..., :3, :])
    refused("the query has 3 heads and keys have 2: pass", query=query[:, :3])
    refused(r"planes of shape \[4, 3, 8\] were given for vectors of length 16", planes=planes[..., :8])
    refused("4096", planes=torch.zeros(2, 12, 16))
    refused("7 causal queries were given for 6 keys", query=query[:, :, [0, 1, 2, 3, 4, 0, 1]], causal=True)
    refused("causal=1", TypeError, causal=1)
    for beta in (0.0, -1.0, math.nan, math.inf):
        refused("pass a finite number above 0", beta=beta)
        refused("pass a finite number above 0", beta=torch.tensor(beta))
    refused("pass at most 10, beyond which weights vanish", beta=11.0)
    refused("pass at most 10, beyond which weights vanish", beta=torch.tensor(11.0))
    refused("beta has shape", beta=torch.ones(4))
    with pytest.raises(ValueError, match="pass at most 10"):
        RaceAttention(16, key=KEY, num_planes=3, beta=11.0)
    with pytest.raises(TypeError, match="Key"):
        RaceAttention(16, key=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("causal", [False, True])
def test_the_steepest_beta_still_has_finite_gradients(dtype: Any, causal: bool) -> None:
    query, keys, values, planes, _ = inputs((1, 2, 1, 200, 200), dtype=dtype)
    with torch.no_grad():
        query *= 10
        keys.copy_(-10 * query[:, :1])
    beta = torch.tensor(10.0 if dtype == torch.float32 else 80 / 3, requires_grad=True)
    value = race_attention(query, keys, values, planes, beta, causal)
    gradients = torch.autograd.grad(value, (query, keys, values, planes, beta), torch.full_like(value, 1e3))
    assert all(bool(torch.isfinite(tensor).all()) for tensor in (value, *gradients))


def test_without_torch_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['torch'] = None; import socket_theory.integrations.torch_layers"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: layers for torch need an extra" in found.stderr
    assert "pip install 'socket-theory[torch]'." in found.stderr
