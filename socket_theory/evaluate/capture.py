"""Real queries, keys and values of a language model, after rotary embedding, and their npz file."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.checks import require_finite, require_float, require_head_ratio, require_plain
from socket_theory.core.files import replacing
from socket_theory.core.npz import read_npz

_SHAPES = {"q": "[layers, Hq, T, D]", "k": "[layers, Hkv, N, D]", "v": "[layers, Hkv, N, D]", "positions": "[T]"}


@dataclass(frozen=True, eq=False)
class Capture:
    """What the attention layers of one model saw over one text. The query at `positions[t]` attends to keys up to it.

    Parameters
    ----------
    q : float array [layers, Hq, T, D]
    k, v : float arrays [layers, Hkv, N, D]
    positions : integer array [T], each in [0, N)
    layers : integer array [layers], rising, optional
        The model's own numbers of these layers, which differ from their places here where some layers of the model
        have no attention. 0, 1, 2 and so on by default.

    Raises
    ------
    TypeError, ValueError
        If a dtype or shape is another one, a value is not finite or a position lies outside the text.
    """

    q: NDArray[Any]
    k: NDArray[Any]
    v: NDArray[Any]
    positions: NDArray[Any]
    layers: NDArray[Any] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __post_init__(self) -> None:
        for name, axes in _SHAPES.items():
            array = getattr(self, name)
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{name} is of type {type(array).__name__}: pass a NumPy array {axes}.")
            require_plain(name, array)
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
        if self.positions.dtype.kind not in "iu":
            raise TypeError(f"positions has dtype {self.positions.dtype}: pass integers.")
        if self.positions.min() < 0 or self.positions.max() >= self.k.shape[2]:
            raise ValueError(f"positions are {self.positions.tolist()}: pass indices in [0, {self.k.shape[2]}).")
        if not self.layers.size:
            object.__setattr__(self, "layers", np.arange(layers))
        self._check_layers()

    def _check_layers(self) -> None:
        numbers = self.layers
        if numbers.dtype.kind not in "iu":
            raise TypeError(f"layers has dtype {numbers.dtype}: pass integers.")
        if numbers.shape != (len(self.q),) or numbers[0] < 0 or (np.diff(numbers.astype(np.int64)) < 1).any():
            raise ValueError(
                f"layers are {numbers.tolist()} for q of {len(self.q)} layers: pass their numbers in the model, rising."
            )

    def save(self, path: Path) -> None:
        """Write the npz; an interrupted write leaves no file."""
        with replacing(path) as file:
            np.savez(file, **{part.name: getattr(self, part.name) for part in fields(self)})


def load_capture(path: Path) -> Capture:
    """Read and check an npz with arrays q, k, v and positions, and layers if their numbers are not 0, 1, 2 and so on.

    Raises
    ------
    ValueError
        Naming the file, if it is no npz, an array is missing, or `Capture` refuses what it holds.
    """
    arrays = read_npz(path)
    missing = [name for name in _SHAPES if name not in arrays]
    if missing:
        wanted = ", ".join(f"{name} {axes}" for name, axes in _SHAPES.items())
        raise ValueError(f"{path.name} has no {', '.join(missing)}: it must hold {wanted}.")
    try:
        return Capture(**{part.name: arrays[part.name] for part in fields(Capture) if part.name in arrays})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path.name} is no capture: {error}") from error
