"""RACE's own operations: what a backend may provide for whole sequences, as the training layers use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

FAMILY = "race"
Empty = Callable[[str, tuple[int, ...], str], Any]
"""Makes an uninitialised row-major array of a name, a shape and a dtype's name, such as "float32"."""


@dataclass(frozen=True)
class SequenceShape:
    """query [B, Hq, T, D], keys [B, Hkv, N, D], values [B, Hkv, N, E], planes [L, P, D], and what else kernels ask.

    `dtype` is the name of the one dtype of queries, keys and values.
    """

    query: tuple[int, ...]
    keys: tuple[int, ...]
    values: tuple[int, ...]
    planes: tuple[int, ...]
    dtype: str
    causal: bool


class SequencePasses(Protocol):
    """A forward and a backward pass over given arrays, launched on the current stream."""

    def forward(self) -> None:
        """Fill "value" [B, Hq, T, E], "mass" and "weighted"."""

    def backward(self, above: Any) -> None:
        """For the gradient `above` of the value, and the "mass" and "weighted" that `forward` left, fill "d_query",
        "d_keys", "d_values" and "d_beta" (float32 [])."""


class SequenceKernels(Protocol):
    """RACE attention of whole sequences and its gradients of everything but planes (R7, R8), on arrays of a backend."""

    def takes(self, shape: SequenceShape) -> bool:
        """Whether there are kernels for arrays of this shape on the current device. The answer is always the same."""

    def sums_shape(self, shape: SequenceShape) -> tuple[int, ...]:
        """Of "weighted", float32 in an order of the kernels' own; "mass" has all axes but the last."""

    def sequences(
        self, query: Any, keys: Any, values: Any, planes: Any, beta: Any, causal: bool, empty: Empty
    ) -> SequencePasses:
        """Passes over queries, keys and values whose rows lie at multiples of 16 bytes, elements side by side, with
        planes and beta [] in float32. What a pass fills and needs is made by `empty`, under the names above and others.
        """
