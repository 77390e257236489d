"""RACE attention of CUDA tensors, forward and backward, beside float64 on the CPU."""

from itertools import product

import pytest

from socket_theory import Key
from socket_theory.core.hashing import SignHash

pytestmark = pytest.mark.gpu
KEY = Key.from_seed(23)
# Largest error over the largest entry; a gradient adds up more roundings.
ALLOWED = {"float64": 1e-10, "float32": 2e-5, "bfloat16": 2e-2}
CASES = list(product(ALLOWED, (False, True), ((4, 4, 300, 300), (6, 2, 70, 5000))))


@pytest.fixture(scope="module")
def torch(device):
    torch = pytest.importorskip("torch", reason="pip install 'socket-theory[torch]'")
    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA device: install torch with CUDA.")
    return torch


def differentiated(torch, tensors, planes, causal):
    """Value and gradients of queries, keys, values, planes and beta, on the CPU in float64."""
    from socket_theory.integrations.torch_layers import race_attention

    leaves = [tensor.detach().clone().requires_grad_() for tensor in (*tensors, planes)]
    beta = torch.tensor(1.7, dtype=planes.dtype, device=planes.device, requires_grad=True)
    value = race_attention(*leaves, beta, causal)
    generator = torch.Generator().manual_seed(4)
    towards = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.dtype)
    value.backward(towards.to(value.device))
    return [part.double().cpu() for part in (value.detach(), *(leaf.grad for leaf in (*leaves, beta)))]


@pytest.mark.parametrize(("dtype", "causal", "sizes"), CASES)
def test_cuda_tensors_have_the_values_and_gradients_of_the_cpu(torch, dtype, causal, sizes):
    queries, heads, asked, held = sizes
    generator = torch.Generator().manual_seed(3)
    shapes = ((2, queries, asked, 64), (2, heads, held, 64), (2, heads, held, 48))
    tensors = [torch.randn(shape, generator=generator).to(getattr(torch, dtype)) for shape in shapes]
    planes = torch.tensor(SignHash(3, 4, 64).draw(KEY).weights)
    wide = torch.float64 if dtype == "float64" else torch.float32
    found = differentiated(torch, [t.cuda() for t in tensors], planes.to(wide).cuda(), causal)
    expected = differentiated(torch, [t.double() for t in tensors], planes, causal)
    for name, left, right in zip(("value", "query", "keys", "values", "planes", "beta"), found, expected, strict=True):
        error = float((left - right).abs().max() / right.abs().max())
        assert error <= ALLOWED[dtype], (name, error)


def test_a_layer_on_a_gpu_learns_and_compiles(torch):
    from socket_theory.integrations.torch_layers import RaceAttention

    layer = RaceAttention(64, key=KEY, causal=True).cuda()
    heads = [torch.randn(1, 4, 200, 64, device="cuda") for _ in range(3)]
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*heads), layer(*heads))
    layer(*heads).square().sum().backward()
    assert layer.log_beta.grad.abs() > 0
