"""RACE's own operations on a GPU: kernels of whole sequences for the training layers."""

from __future__ import annotations

from typing import Any

from socket_gpu.race import limits
from socket_gpu.race.sequences import RaceSequences
from socket_theory.race.operations import Empty, SequenceShape


class CupySequences:
    """`SequenceKernels` of CuPy arrays."""

    def takes(self, shape: SequenceShape) -> bool:
        try:
            limits.require_shape(shape)
        except (TypeError, ValueError):
            return False
        return True

    def sums_shape(self, shape: SequenceShape) -> tuple[int, ...]:
        return limits.sums_shape(shape)

    def sequences(
        self, query: Any, keys: Any, values: Any, planes: Any, beta: Any, causal: bool, empty: Empty
    ) -> RaceSequences:
        return RaceSequences(query, keys, values, planes, beta, causal, empty)
