"""The only file that touches Hugging Face transformers (4.57 and 5.x): load a model offline, see its attention inputs.

Attention is observed where transformers lets a user replace it: a function and its mask function are registered
under one name, and the function receives the queries, keys and values of each layer after rotary embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
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

Array = NDArray[np.float32]
Record = Callable[[int, Array, Array, Array], None]

_NAME = "socket_theory_capture"
_CHANGES_THE_SOFTMAX = ("softcap", "s_aux", "position_bias")


def _location(path: Path) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a GGUF file or a checkpoint folder; nothing is asked of the hub."""
    if path.is_file():
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name, "local_files_only": True}
    return {"pretrained_model_name_or_path": str(path), "local_files_only": True}


def encode(path: Path, text: str) -> list[int]:
    """Token ids of `text` by the model's own tokenizer, without a leading or closing special token."""
    tokenizer = AutoTokenizer.from_pretrained(**_location(path))
    return [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def num_layers(path: Path) -> int:
    """How many layers the model has, from its configuration alone."""
    return int(AutoConfig.from_pretrained(**_location(path)).get_text_config().num_hidden_layers)


def load_model(path: Path) -> Any:
    """The causal language model of a GGUF file or checkpoint folder, in float32 and evaluation mode.

    Raises
    ------
    OSError
        From transformers, if the files are not a model it can read.
    """
    with redirect_stderr(StringIO()):  # transformers and gguf draw progress bars that cannot be switched off singly
        return AutoModelForCausalLM.from_pretrained(**_location(path), dtype=torch.float32).eval()


def observe_attention(model: Any, token_ids: Sequence[int], record: Record) -> None:
    """Run one prefill and call `record(layer, query, key, value)` with what each attention layer receives.

    The arrays are float32 NumPy, after rotary embedding: query [Hq, N, D], key and value [Hkv, N, D]. The model
    computes its own attention on them and is left as it was; no logits over the vocabulary are computed.

    Raises
    ------
    ValueError
        If the model is given more tokens than it has positions, or its attention is not a plain causal softmax of
        <q, k>/sqrt(D) (sliding window, sink, soft cap, position bias, dropout or another scale).
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and len(token_ids) > limit:
        raise ValueError(f"{len(token_ids)} tokens were given to a model of {limit} positions: pass a smaller context.")
    AttentionInterface.register(_NAME, _observed_attention)
    AttentionMaskInterface.register(_NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    before = model.config._attn_implementation
    model.set_attn_implementation(_NAME)
    try:
        with torch.inference_mode():
            # The model without its head: a forward keyword it does not know reaches the attention function.
            model.base_model(torch.tensor([list(token_ids)], device=model.device), use_cache=False, record=record)
    finally:
        model.set_attn_implementation(before)


def _observed_attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, record: Record, **arguments: Any
) -> Any:
    _require_plain_softmax(query, arguments)
    record(module.layer_idx, *(tensor[0].to(torch.float32).cpu().numpy() for tensor in (query, key, value)))
    return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **arguments)


def _require_plain_softmax(query: Any, arguments: dict[str, Any]) -> None:
    tokens, head_dim = query.shape[-2:]
    scale = head_dim**-0.5
    found = [name for name in _CHANGES_THE_SOFTMAX if arguments.get(name) is not None]
    found += ["dropout"] if arguments.get("dropout") else []
    found += ["sliding_window"] if (arguments.get("sliding_window") or tokens) < tokens else []
    found += [] if np.isclose(arguments.get("scaling") or scale, scale) else ["scaling"]
    if found:
        raise ValueError(
            f"this model's attention uses {', '.join(found)}: "
            "pass a model whose attention is a plain causal softmax of <q, k>/sqrt(head_dim)."
        )
