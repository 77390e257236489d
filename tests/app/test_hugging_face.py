"""What the attention layers of a language model receive, and which kinds of attention are refused: toy models."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from socket_theory.core.attention import softmax_attention

pytestmark = pytest.mark.llm

TOKENS = list(range(3, 43))


def observe(llm: SimpleNamespace, model: Any, tokens: list[int] = TOKENS) -> dict[int, tuple[Any, Any, Any]]:
    seen = {}

    def record(layer: int, query: Any, key: Any, value: Any) -> None:
        seen[layer] = (query, key, value)

    llm.hugging_face.observe_attention(model, tokens, record)
    return seen


def require_refused(llm: SimpleNamespace, model: Any, words: str) -> None:
    """And left as it was."""
    implementation = model.config._attn_implementation
    with pytest.raises(ValueError, match=words):
        observe(llm, model)
    assert model.config._attn_implementation == implementation


@pytest.mark.parametrize(
    ("family", "config"),
    [("Llama", {}), ("Qwen2", {}), ("Mistral", {"sliding_window": None}), ("Mistral", {"sliding_window": 40})],
)
def test_the_observed_arrays_reproduce_the_models_own_attention(
    llm: SimpleNamespace, make_model: Callable[..., Any], family: str, config: dict[str, Any]
) -> None:
    model = make_model(family, **config)
    outputs: dict[int, Any] = {}
    for index, layer in enumerate(model.model.layers):
        layer.self_attn.o_proj.register_forward_pre_hook(
            lambda _, inputs, index=index: outputs.__setitem__(index, inputs[0][0].numpy())
        )
    seen = observe(llm, model)
    assert sorted(seen) == [0, 1, 2]
    for index, (query, key, value) in seen.items():
        assert query.shape == (4, 40, 8)
        assert key.shape == value.shape == (2, 40, 8)
        for time in range(40):
            heads = [
                softmax_attention(query[head, time], key[head // 2, : time + 1], value[head // 2, : time + 1]).value
                for head in range(4)
            ]
            np.testing.assert_allclose(np.concatenate(heads), outputs[index][time], atol=1e-5)


def test_keys_are_observed_after_rotary_embedding(llm: SimpleNamespace, make_model: Callable[..., Any]) -> None:
    (_, key, value), *_ = observe(llm, make_model("Llama"), [7] * 10).values()
    np.testing.assert_allclose(value[:, 0], value[:, 9], atol=1e-6)
    assert np.abs(key[:, 0] - key[:, 9]).max() > 1e-3
    np.testing.assert_allclose(np.linalg.norm(key[:, 0], axis=-1), np.linalg.norm(key[:, 9], axis=-1), rtol=1e-5)


def test_the_model_is_left_as_it_was_and_makes_no_logits(llm: SimpleNamespace, make_model: Callable[..., Any]) -> None:
    model = make_model("Llama")
    tokens = llm.torch.tensor([TOKENS])
    with llm.torch.inference_mode():
        before = model(tokens).logits
    calls: list[int] = []
    hook = model.lm_head.register_forward_hook(lambda *_: calls.append(1))
    implementation = model.config._attn_implementation
    observe(llm, model)
    hook.remove()
    assert not calls
    assert model.config._attn_implementation == implementation
    with llm.torch.inference_mode():
        np.testing.assert_array_equal(model(tokens).logits, before)


@pytest.mark.parametrize(
    ("family", "config", "name"),
    [
        ("Mistral", {"sliding_window": 8}, "sliding_window"),
        ("Gemma2", {"head_dim": 8}, "softcap"),
        ("Granite", {"attention_multiplier": 1.0}, "scaling"),
        ("GptOss", {"head_dim": 8, "num_local_experts": 2}, "s_aux"),
    ],
)
def test_attention_that_is_not_a_plain_softmax_is_refused(
    llm: SimpleNamespace, make_model: Callable[..., Any], family: str, config: dict[str, Any], name: str
) -> None:
    words = f"this model's attention uses .*{name}.*: pass a model whose attention is a"
    require_refused(llm, make_model(family, **config), words)


def test_more_tokens_than_positions_are_refused(llm: SimpleNamespace, make_model: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="129 tokens were given to a model of 128 positions: pass a smaller context"):
        observe(llm, make_model("Llama"), [5] * 129)


def test_a_checkpoint_loads_without_a_network(
    llm: SimpleNamespace, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a network connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert llm.hugging_face.encode(checkpoint, "w5 w9 w5") == [5, 9, 5]
    model = llm.hugging_face.load_model(checkpoint)
    assert model.dtype == llm.torch.float32
    assert not model.training


@pytest.mark.parametrize(
    ("family", "config", "words"),
    [
        (
            "Llama4Text",
            {"head_dim": 8, "attention_chunk_size": 8, "num_local_experts": 2, "intermediate_size_mlp": 48},
            r"a mask that is not the causal triangle \(in Llama4TextAttention, layer 0\)",
        ),
        ("Doge", {}, r"a mask that is not the causal triangle \(in DogeAttention, layer 0\)"),
        ("Falcon", {}, "no attention of FalconForCausalLM was seen, it goes another way"),
        ("Bloom", {"n_head": 4}, "no attention of BloomForCausalLM was seen"),
        ("Mamba", {}, "no attention of MambaForCausalLM was seen"),
        ("DiffLlama", {}, "layer 0 of DiffLlamaForCausalLM attends twice"),
    ],
)
def test_attention_that_cannot_be_judged_as_plain_and_causal_is_refused(
    llm: SimpleNamespace, make_model: Callable[..., Any], family: str, config: dict[str, Any], words: str
) -> None:
    require_refused(llm, make_model(family, **config), f"{words}.*: pass a model whose")


def test_a_chunk_that_does_not_bite_is_plain_attention(llm: SimpleNamespace, make_model: Callable[..., Any]) -> None:
    config = {"head_dim": 8, "attention_chunk_size": 64, "num_local_experts": 2, "intermediate_size_mlp": 48}
    assert sorted(observe(llm, make_model("Llama4Text", **config))) == [0, 1, 2]


@pytest.mark.parametrize("additive", [False, True])
def test_a_mask_is_compared_with_the_triangle_whatever_it_is_made_of(llm: SimpleNamespace, additive: bool) -> None:
    from socket_theory.integrations.plain_attention import require_plain_causal

    torch = llm.torch
    query = key = torch.zeros(1, 2, 5, 4)
    module = SimpleNamespace(layer_idx=0)

    def check(allowed: Any) -> None:
        mask = torch.zeros(5, 5).masked_fill(~allowed, torch.finfo(torch.float32).min) if additive else allowed
        require_plain_causal(module, query, key, key, mask[None, None], {})

    triangle = torch.ones(5, 5, dtype=torch.bool).tril()
    check(triangle)
    for place in ((0, 1), (4, 0), (3, 3)):
        other = triangle.clone()
        other[place] = ~other[place]
        with pytest.raises(ValueError, match="a mask that is not the causal triangle"):
            check(other)
    slope = torch.zeros(5, 5).masked_fill(~triangle, -torch.inf)
    slope[4, 0] = -0.5
    with pytest.raises(ValueError, match="a mask that is not the causal triangle"):
        require_plain_causal(module, query, key, key, slope, {})
    require_plain_causal(module, query, key, key, None, {})
    with pytest.raises(ValueError, match="no causal mask"):
        require_plain_causal(module, query, key, key, None, {"is_causal": False})


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(7, 1, 8), (4, 4, 16), (2, 1, 128)])
def test_any_ratio_of_heads_and_head_dim_is_observed(
    llm: SimpleNamespace, make_model: Callable[..., Any], heads: int, kv_heads: int, head_dim: int
) -> None:
    sizes = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim, "hidden_size": 56}
    for query, key, value in observe(llm, make_model("Llama", **sizes)).values():
        assert query.shape == (heads, 40, head_dim)
        assert key.shape == value.shape == (kv_heads, 40, head_dim)


def test_layers_have_the_models_own_numbers(llm: SimpleNamespace, make_model: Callable[..., Any]) -> None:
    kinds = ["conv", "full_attention", "conv", "full_attention"]
    assert sorted(observe(llm, make_model("Lfm2", num_hidden_layers=4, layer_types=kinds))) == [1, 3]
