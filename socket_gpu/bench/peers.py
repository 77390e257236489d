"""What a dense peer is given, and what it gives back: a list of ways to call it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from socket_gpu.bench.inputs import Inputs
from socket_theory.core.array_types import from_native


@dataclass(frozen=True, eq=False)
class Tensors:
    """The inputs as torch tensors: query [B, Hq, D]; keys, values [B, Hkv, N, D] in two orders of memory.

    `heads_first` are the inputs themselves, memory [B, Hkv, N, D]; `tokens_first` are copies, memory [B, N, Hkv, D].
    """

    query: Any
    heads_first: tuple[Any, Any]
    tokens_first: tuple[Any, Any]

    @classmethod
    def of(cls, inputs: Inputs) -> Tensors:
        """Raises ImportError without torch."""
        query, keys, values = (from_native(a, "torch-cuda") for a in (inputs.queries[0], inputs.keys, inputs.values))
        copied_keys, copied_values = (a.transpose(1, 2).contiguous().transpose(1, 2) for a in (keys, values))
        return cls(query, (keys, values), (copied_keys, copied_values))


@dataclass(frozen=True, eq=False)
class Call:
    """One way to call a kernel: `attend()` gives the outputs of [B, Hq, D] in that order, in any shape.

    `choice()` is a context that selects the kernel.
    """

    name: str
    attend: Callable[[], Any]
    choice: Callable[[], AbstractContextManager[Any]] = nullcontext
