"""What a benchmark runs of torch beside RACE's kernels, on the CPU: our passes, and our features for other kernels."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'socket-theory[torch]'")

import torch

from socket_gpu.race.bench_peers import _features
from socket_theory import Key, SignHash
from socket_theory.evaluate.race_passes import torch_passes
from socket_theory.integrations.torch_layers import race_attention
from socket_theory.race.features import soft_buckets

PLANES = torch.tensor(SignHash(2, 3, 8).draw(Key.from_seed(3)).weights).float()
BETA = torch.tensor(1.5)


@pytest.mark.parametrize("causal", [False, True])
def test_the_passes_give_the_value_of_the_function(causal):
    torch.manual_seed(0)
    query, keys, values = torch.randn(1, 4, 50, 8), torch.randn(1, 2, 50, 8), torch.randn(1, 2, 50, 8)
    expected = race_attention(query, keys, values, PLANES, BETA, causal)
    for run in torch_passes(query, keys, values, PLANES, BETA, causal):
        torch.testing.assert_close(run(), expected)


def test_features_for_other_kernels_are_those_of_the_reference():
    vectors = torch.randn(1, 5, 2, 8)
    found = _features(torch, vectors, PLANES, BETA)
    expected = soft_buckets(vectors.double().numpy(), PLANES.double().numpy(), 1.5)
    np.testing.assert_allclose(found.numpy(), expected.reshape(1, 5, 2, -1), rtol=1e-5)
    assert _features(torch, vectors.bfloat16(), PLANES, BETA).dtype == torch.bfloat16
