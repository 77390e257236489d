"""Real queries, keys and values: taken from a language model after rotary embedding, and kept in one npz format."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.checks import require_count, require_finite, require_float, require_head_ratio
from socket_theory.evaluate.weights import cache_folder
from socket_theory.files import file_sha256, replacing
from socket_theory.npz import read_npz

FORMAT = 1
_SHAPES = {"q": "[layers, Hq, T, D]", "k": "[layers, Hkv, N, D]", "v": "[layers, Hkv, N, D]", "positions": "[T]"}


@dataclass(frozen=True, eq=False)
class Capture:
    """What the attention layers of one model saw over one text. The query at `positions[t]` attends to keys up to it.

    Parameters
    ----------
    q : float array [layers, Hq, T, D]
    k, v : float arrays [layers, Hkv, N, D]
    positions : integer array [T], each in [0, N)

    Raises
    ------
    TypeError, ValueError
        If a dtype or shape is another one, a value is not finite or a position lies outside the text.
    """

    q: NDArray[Any]
    k: NDArray[Any]
    v: NDArray[Any]
    positions: NDArray[Any]

    def __post_init__(self) -> None:
        for name, axes in _SHAPES.items():
            array = getattr(self, name)
            if array.ndim != axes.count(",") + 1 or 0 in array.shape:
                raise ValueError(f"{name} has shape {array.shape}: pass a non-empty array {axes}.")
        if self.k.shape != self.v.shape:
            raise ValueError(f"k has shape {self.k.shape} and v {self.v.shape}: pass one {_SHAPES['k']} for both.")
        layers, heads, times, head_dim = self.q.shape
        if (layers, head_dim) != (self.k.shape[0], self.k.shape[3]) or times != len(self.positions):
            raise ValueError(
                f"q has shape {self.q.shape}, k {self.k.shape} and positions {self.positions.shape}: "
                f"pass q {_SHAPES['q']} with the layers and D of k, and one position a query."
            )
        require_head_ratio(heads, self.k.shape[1])
        for name in ("q", "k", "v"):
            require_float(name, getattr(self, name).dtype)
            require_finite(name, getattr(self, name))
        if not np.issubdtype(self.positions.dtype, np.integer):
            raise TypeError(f"positions has dtype {self.positions.dtype}: pass integers.")
        if self.positions.min() < 0 or self.positions.max() >= self.k.shape[2]:
            raise ValueError(f"positions are {self.positions.tolist()}: pass indices in [0, {self.k.shape[2]}).")

    def save(self, path: Path) -> None:
        """Write the npz; an interrupted write leaves no file."""
        with replacing(path) as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})


def load_capture(path: Path) -> Capture:
    """Read and check an npz with arrays q, k, v and positions.

    Raises
    ------
    TypeError, ValueError
        If the file is no npz, an array is missing, or `Capture` refuses what it holds.
    """
    arrays = read_npz(path)
    missing = [name for name in _SHAPES if name not in arrays]
    if missing:
        wanted = ", ".join(f"{name} {axes}" for name, axes in _SHAPES.items())
        raise ValueError(f"{path.name} has no {', '.join(missing)}: it must hold {wanted}.")
    return Capture(**arrays)


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


def weights_sha256(path: Path) -> str:
    """One hash for a GGUF file, or for the configuration and weight files of a checkpoint folder."""
    if path.is_file():
        return file_sha256(path)
    files = sorted(file for file in path.iterdir() if file.suffix in (".json", ".safetensors", ".bin"))
    listing = "\n".join(f"{file.name} {file_sha256(file)}" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def count_layers(model: Path) -> int:
    """How many layers a capture of the model will have; no weight is read. ImportError without the `llm` extra."""
    from socket_theory.integrations import hugging_face

    return hugging_face.num_layers(model)


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
    if path.is_file():
        return load_capture(path)

    layers: dict[int, tuple[NDArray[Any], ...]] = {}

    def record(layer: int, query: NDArray[Any], key: NDArray[Any], value: NDArray[Any]) -> None:
        layers[layer] = (query[:, positions], _to_float16("keys", key), _to_float16("values", value))
        on_layer()

    hugging_face.observe_attention(hugging_face.load_model(model), token_ids, record)
    q, k, v = (np.stack([layers[layer][part] for layer in sorted(layers)]) for part in range(3))
    capture = Capture(q, k, v, positions)
    capture.save(path)
    return capture


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
