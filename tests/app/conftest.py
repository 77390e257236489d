"""Toy language models with random weights: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@pytest.fixture(scope="session")
def llm(require_extra: Callable[..., Any]) -> SimpleNamespace:
    """torch, transformers and our adapter, or a skip that names the extra."""
    torch, transformers, _, _ = require_extra("llm", "torch", "transformers", "gguf", "accelerate")
    from socket_theory.integrations import hugging_face

    return SimpleNamespace(torch=torch, transformers=transformers, hugging_face=hugging_face)


@pytest.fixture
def make_model(llm: SimpleNamespace) -> Callable[..., Any]:
    """`make_model("Llama", **config)`: a causal language model of that family with random weights."""

    def make(family: str, **config: Any) -> Any:
        llm.torch.manual_seed(0)
        settings = getattr(llm.transformers, f"{family}Config")(**SIZES | config)
        return getattr(llm.transformers, f"{family.removesuffix('Text')}ForCausalLM")(settings).eval()

    return make


@pytest.fixture
def checkpoint(llm: SimpleNamespace, make_model: Callable[..., Any], tmp_path: Path) -> Path:
    """A checkpoint folder of a toy Llama with a tokenizer of one word a token, which adds <s> when asked to."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = {f"w{i}": i for i in range(3, 64)} | {"<pad>": 0, "<s>": 1, "</s>": 2}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    folder = tmp_path / "checkpoint"
    make_model("Llama").save_pretrained(folder)
    llm.transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(folder)
    return folder
