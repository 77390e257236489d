"""Captures of a text: the model's prefill over it, the positions that are kept, and the cache of captures."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.checks import require_count
from socket_theory.core.files import file_sha256
from socket_theory.evaluate.capture import Capture, load_capture
from socket_theory.evaluate.weights import cache_folder

FORMAT = 2


def even_positions(context: int, count: int) -> NDArray[np.int64]:
    """`count` positions at even steps over the second half of `context` tokens, the last token included.

    Raises
    ------
    ValueError
        If the second half has fewer than `count` tokens.
    """
    half = require_count("context", context) // 2
    if require_count("count", count) > half:
        raise ValueError(f"context={context} was given for {count} positions: pass a context of at least {2 * count}.")
    return context - 1 - (np.arange(count, dtype=np.int64)[::-1] * half) // count


def default_text() -> str:
    """The help texts that ship with Python (`pydoc_data.topics`), joined by newlines in the order of their names.

    They change with Python's version, so results carry the text's hash.
    """
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def read_text(path: Path) -> str:
    """The UTF-8 text of a file, else ValueError with the place of what is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path.name} is no UTF-8 text (byte {error.object[error.start]:#04x} at offset {error.start}): "
            "convert it to UTF-8 first."
        ) from error


def weights_sha256(path: Path) -> str:
    """One hash for a GGUF file, or for the configuration and weight files of a checkpoint folder."""
    if path.is_file():
        return file_sha256(path)
    files = sorted(file for file in path.iterdir() if file.suffix in (".json", ".safetensors", ".bin"))
    listing = "\n".join(f"{file.name} {file_sha256(file)}" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def attention_layers(model: Path) -> list[int]:
    """The numbers of the layers with attention, as far as the configuration tells; no weight is read.

    Raises ImportError without the `llm` extra, and ValueError for a file that cannot be read.
    """
    from socket_theory.integrations import hugging_face

    return hugging_face.attention_layers(model)


def capture_text(
    model: Path, text: str, *, context: int, count: int, on_layer: Callable[[], None] = lambda: None
) -> Capture:
    """The capture of a model over the first `context` tokens of `text`, from the cache if it was made before.

    K and V are stored as float16, which is what every method and the exact answer then see. `on_layer` is called
    after each layer of the prefill.

    Raises
    ------
    ValueError
        If the text is shorter than `context` tokens, or the model's attention is not a plain causal softmax.
    ImportError
        With the install line, if the `llm` extra is missing.
    """
    from socket_theory.integrations import hugging_face

    positions = even_positions(context, count)
    token_ids = hugging_face.encode(model, text)[:context]
    if len(token_ids) < context:
        raise ValueError(
            f"the text has {len(token_ids)} tokens and context={context}: pass a longer text or a shorter context."
        )
    path = cache_folder() / "captures" / f"{_capture_key(model, token_ids, positions)}.npz"
    kept = _kept(path)
    if kept is not None:
        return kept

    layers: dict[int, tuple[NDArray[Any], ...]] = {}

    def record(layer: int, query: NDArray[Any], key: NDArray[Any], value: NDArray[Any]) -> None:
        for name, array in (("queries", query), ("keys", key), ("values", value)):
            _require_finite(model, layer, name, array)
        layers[layer] = (query[:, positions], _to_float16("keys", key), _to_float16("values", value))
        on_layer()

    hugging_face.observe_attention(hugging_face.load_model(model), token_ids, record)
    numbers = sorted(layers)
    shapes = {tuple(part.shape for part in layers[layer]) for layer in numbers}
    if len(shapes) > 1:
        raise ValueError(f"{model.name} has layers of different heads: only those alike can be captured together.")
    q, k, v = (np.stack([layers[layer][part] for layer in numbers]) for part in range(3))
    capture = Capture(q, k, v, positions, np.array(numbers))
    try:
        capture.save(path)
    except OSError as error:
        warnings.warn(f"the capture is used but not kept, it cannot be written ({error}).", stacklevel=2)
    return capture


def _kept(path: Path) -> Capture | None:
    """The capture made before, None where there is none or it cannot be read."""
    try:
        return load_capture(path) if path.is_file() else None
    except (OSError, ValueError, TypeError) as error:
        warnings.warn(f"the capture is made anew, the one kept cannot be read ({error}).", stacklevel=3)
        return None


def _require_finite(model: Path, layer: int, name: str, array: NDArray[Any]) -> None:
    if not np.isfinite(array).all():
        raise ValueError(
            f"the {name} of layer {layer} contain NaN or infinity: {model.name} is altered, or its numbers overflow. "
            "Write the file anew."
        )


def _to_float16(name: str, array: NDArray[Any]) -> NDArray[np.float16]:
    largest = float(np.max(np.abs(array)))
    if largest > np.finfo(np.float16).max:
        raise ValueError(f"the model's {name} reach {largest:.3g}, beyond float16: captures of it cannot be stored.")
    return array.astype(np.float16)


def _capture_key(model: Path, token_ids: Sequence[int], positions: NDArray[np.int64]) -> str:
    digest = hashlib.sha256(f"{FORMAT} {weights_sha256(model)}".encode())
    for part in (token_ids, positions):
        digest.update(b"|" + np.asarray(part, dtype="<i8").tobytes())
    return digest.hexdigest()[:32]
