"""The only file that touches Hugging Face transformers (4.57 and 5.x): load a model offline, see its attention inputs.

Attention is observed where transformers lets a user replace it: a function and its mask function are registered
under one name, and the function receives the queries, keys and values of each layer after rotary embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from contextvars import ContextVar
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    import gguf  # noqa: F401 (transformers reads GGUF files through it)
    import torch
    from transformers import (
        AttentionInterface,
        AttentionMaskInterface,
        AutoConfig,
        AutoModelForCausalLM,
        AutoTokenizer,
    )
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
except ImportError as error:
    raise ImportError(f"language models need an extra ({error}): pip install 'socket-theory[llm]'.") from error

from socket_theory.integrations.plain_attention import require_plain_causal

Array = NDArray[np.float32]
Record = Callable[[int, Array, Array, Array], None]

_NAME = "socket_theory_capture"
_UNATTENDED = ("linear_attention", "mamba", "conv", "recurrent", "moe", "mlp")
_PASS_ANOTHER = "pass a model whose layers each call transformers' attention interface once."
_record: ContextVar[Record] = ContextVar("record")


def _location(path: Path) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a GGUF file or a checkpoint folder; nothing is asked of the hub."""
    if path.is_file():
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name, "local_files_only": True}
    return {"pretrained_model_name_or_path": str(path), "local_files_only": True}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever transformers, gguf and safetensors raise over a file they cannot read becomes one sentence."""
    try:
        with redirect_stderr(StringIO()):  # they draw progress bars that cannot be switched off singly
            yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        first, *_ = str(error).strip().splitlines() or [""]
        raise ValueError(
            f"{path} cannot be read as a language model ({type(error).__name__}: {first}): "
            "the file may be cut short or altered, or of a kind that transformers cannot read; write it anew."
        ) from error


def encode(path: Path, text: str) -> list[int]:
    """Token ids of `text` by the model's own tokenizer, without a leading or closing special token.

    Raises
    ------
    ValueError
        With the file's name, if transformers cannot read it.
    """
    with _reading(path):
        tokenizer = AutoTokenizer.from_pretrained(**_location(path))
        return [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def attention_layers(path: Path) -> list[int]:
    """The numbers of the layers that have attention, from the model's configuration alone. Raises as `encode`.

    A configuration that does not tell its layers' kinds stands for attention in all of them.
    """
    with _reading(path):
        config = AutoConfig.from_pretrained(**_location(path)).get_text_config()
        kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
        kinds = kinds or ["full_attention"] * int(config.num_hidden_layers)
    return [layer for layer, kind in enumerate(kinds) if kind not in _UNATTENDED]


def load_model(path: Path) -> Any:
    """The causal language model of a file or folder, in float32 and evaluation mode. Raises as `encode`."""
    with _reading(path):
        return AutoModelForCausalLM.from_pretrained(**_location(path), dtype=torch.float32).eval()


def observe_attention(model: Any, token_ids: Sequence[int], record: Record) -> None:
    """Run one prefill and call `record(layer, query, key, value)` with what each attention layer receives.

    Layers have the model's own numbers; those without attention are passed over. The arrays are float32 NumPy, after
    rotary embedding: query [Hq, N, D], key and value [Hkv, N, D]. The model computes its own attention on them and is
    left as it was; no logits over the vocabulary are computed.

    Raises
    ------
    ValueError
        If the model is given more tokens than it has positions, its attention is not a plain causal softmax of
        <q, k>/sqrt(D) (another mask, sliding window, sink, soft cap, bias, dropout or scale), a layer attends twice,
        or no attention goes through transformers' attention interface, where it could be seen.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and len(token_ids) > limit:
        raise ValueError(f"{len(token_ids)} tokens were given to a model of {limit} positions: pass a smaller context.")
    seen: set[int] = set()

    def record_once(layer: int, *arrays: Array) -> None:
        if layer in seen:
            raise ValueError(f"layer {layer} of {type(model).__name__} attends twice: {_PASS_ANOTHER}")
        seen.add(layer)
        record(layer, *arrays)

    AttentionInterface.register(_NAME, _observed_attention)
    AttentionMaskInterface.register(_NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    before = model.config._attn_implementation
    token = _record.set(record_once)
    try:
        model.set_attn_implementation(_NAME)
        with torch.inference_mode():
            # The model without its head.
            model.base_model(torch.tensor([list(token_ids)], device=model.device), use_cache=False)
    finally:
        _record.reset(token)
        model.set_attn_implementation(before)
    if not seen:
        raise ValueError(f"no attention of {type(model).__name__} was seen, it goes another way: {_PASS_ANOTHER}")


def _observed_attention(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **arguments: Any) -> Any:
    require_plain_causal(module, query, key, value, attention_mask, arguments)
    layer = getattr(module, "layer_idx", None)
    if layer is None:
        raise ValueError(f"{type(module).__name__} does not know its layer: {_PASS_ANOTHER}")
    _record.get()(layer, *(tensor[0].to(torch.float32).cpu().numpy() for tensor in (query, key, value)))
    return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **arguments)
