"""Is a call of transformers' attention function a plain causal softmax of <q, k>/sqrt(head_dim)? Refused if not."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

# Arguments that change the weights: a cap on logits, a sink, biases, and keys chosen by an indexer.
_CHANGES_THE_SOFTMAX = ("softcap", "s_aux", "sinks", "position_bias", "alibi", "indices", "block_indices")
# An additive mask may stand for minus infinity by any number whose exponential vanishes.
_FORBIDDEN = -1e4


def require_plain_causal(module: Any, query: Any, key: Any, value: Any, mask: Any, arguments: dict[str, Any]) -> None:
    """ValueError, with the module and what it does, unless each query attends to itself and all before it, plainly.

    Shapes: query [1, Hq, N, D], key [1, Hkv, N, D], value [1, Hkv, N, D]; mask [..., N, N] or None, boolean (True
    attends) or additive. `arguments` are the other keywords of the call.
    """
    found = [*_other_weights(query, arguments), *_other_tokens(module, query, key, mask, arguments)]
    if value.shape != key.shape:
        found.append(f"values {tuple(value.shape[1:])} beside keys {tuple(key.shape[1:])}")
    if found:
        raise ValueError(
            f"this model's attention uses {', '.join(found)} (in {type(module).__name__}, "
            f"layer {getattr(module, 'layer_idx', None)}): "
            "pass a model whose attention is a plain causal softmax of <q, k>/sqrt(head_dim)."
        )


def _other_weights(query: Any, arguments: dict[str, Any]) -> list[str]:
    scale = query.shape[-1] ** -0.5
    found = [name for name in _CHANGES_THE_SOFTMAX if arguments.get(name) is not None]
    found += ["dropout"] if arguments.get("dropout") else []
    return found + ([] if np.isclose(arguments.get("scaling") or scale, scale) else ["scaling"])


def _other_tokens(module: Any, query: Any, key: Any, mask: Any, arguments: dict[str, Any]) -> list[str]:
    tokens = query.shape[-2]
    if key.shape[-2] != tokens:
        return [f"{key.shape[-2]} keys for {tokens} queries"]
    if (arguments.get("sliding_window") or tokens) < tokens:
        return ["sliding_window"]
    if mask is not None:
        return [] if _is_causal_triangle(mask, tokens) else ["a mask that is not the causal triangle"]
    causal = arguments.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    return [] if causal or tokens == 1 else ["no causal mask"]


def _is_causal_triangle(mask: Any, tokens: int) -> bool:
    if tuple(mask.shape[-2:]) != (tokens, tokens):
        return False
    triangle = torch.ones(tokens, tokens, dtype=torch.bool, device=mask.device).tril()
    if mask.dtype == torch.bool:
        return bool((mask == triangle).all())
    return bool(torch.where(triangle, mask == 0, mask <= _FORBIDDEN).all())
