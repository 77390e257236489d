"""RACE attention of torch tensors by the kernels that a GPU's backend has, where it has some for them (R7, R8)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from socket_theory.core.array_types import array_type, callers_stream, to_native
from socket_theory.core.backend import operations, resolve_backend
from socket_theory.race.operations import FAMILY, SequenceKernels, SequenceShape


@cache
def kernels_on(device_type: str) -> SequenceKernels | None:
    """The kernels for tensors on a device of this type, None where there are none or something they need is missing."""
    if device_type != "cuda":
        return None
    try:
        found: SequenceKernels = operations(FAMILY, resolve_backend("torch-cuda"))
    except RuntimeError:
        return None
    return found


@dataclass(frozen=True, eq=False)
class Kernels:
    """Kernels that take these tensors: query [..., Hq, T, D], keys and values [..., Hkv, N, D]."""

    own: SequenceKernels
    shape: SequenceShape
    device: Any

    @classmethod
    def of(cls, query: Any, keys: Any, values: Any, planes: Any, causal: bool) -> Kernels | None:
        """From shapes, dtype and device alone, as for tensors without data; None where no kernel takes them."""
        own = kernels_on(query.device.type)
        if own is None:
            return None
        heads = _four(query.shape), _four(keys.shape), _four(values.shape)
        dtype = str(query.dtype).removeprefix("torch.")
        made = cls(own, SequenceShape(*heads, tuple(planes.shape), dtype, causal), query.device)
        with made._current():
            return made if own.takes(made.shape) else None

    def empty_sums(self, like: Any) -> tuple[Any, Any]:
        """mass [G, tiles + 1, F] and weighted [G, tiles + 1, F, D], which `attend` fills."""
        with self._current():
            shape = self.own.sums_shape(self.shape)
        return like.new_empty(shape[:-1], dtype=torch.float32), like.new_empty(shape, dtype=torch.float32)

    def attend(self, query: Any, keys: Any, values: Any, planes: Any, beta: Any) -> tuple[Any, Any, Any]:
        """The value, and the sums that `differentiate` needs."""
        made: dict[str, Any] = {}
        with self._launching(query):
            self._passes(query, keys, values, planes, beta, made).forward()
        return made["value"].view(query.shape), made["mass"], made["weighted"]

    def differentiate(
        self, query: Any, keys: Any, values: Any, planes: Any, beta: Any, above: Any, mass: Any, weighted: Any
    ) -> list[Any]:
        """Gradients of query, keys, values and beta."""
        made = {"mass": mass, "weighted": weighted}
        with self._launching(query):
            passes = self._passes(query, keys, values, planes, beta, made)
            passes.backward(_native("above", _rows(above.reshape(self.shape.query))))
        heads = [made[f"d_{name}"].view(like.shape) for name, like in _named(query, keys, values)]
        return [*heads, made["d_beta"].to(beta.dtype)]

    def _passes(self, query: Any, keys: Any, values: Any, planes: Any, beta: Any, made: dict[str, Any]) -> Any:
        def empty(name: str, shape: tuple[int, ...], dtype: str) -> Any:
            if name not in made:
                made[name] = torch.empty(shape, dtype=getattr(torch, dtype), device=self.device)
            return _native(name, made[name])

        q, k, v = (_native(name, _rows(x.reshape(_four(x.shape)))) for name, x in _named(query, keys, values))
        w, b = (_native(name, x.float().contiguous()) for name, x in (("planes", planes), ("beta", beta)))
        return self.own.sequences(q, k, v, w, b, self.shape.causal, empty)

    @contextmanager
    def _launching(self, tensor: Any) -> Iterator[None]:
        with self._current(), callers_stream(array_type(tensor)):
            yield

    def _current(self) -> Any:
        """The tensors' device as the current one."""
        return torch.cuda.device(self.device)


def _named(query: Any, keys: Any, values: Any) -> Any:
    return zip(("query", "keys", "values"), (query, keys, values), strict=True)


def _native(name: str, tensor: Any) -> Any:
    return to_native(name, tensor.detach())


def _four(shape: Any) -> tuple[int, ...]:
    """[..., H, n, C] with all leading axes in one."""
    batch = 1
    for size in shape[:-3]:
        batch *= size
    return (batch, *shape[-3:])


def _rows(heads: Any) -> Any:
    """`heads` [B, H, n, C], or a copy if its rows do not start at multiples of 16 bytes, elements side by side."""
    steps = [stride for stride, size in zip(heads.stride(), heads.shape, strict=True) if size > 1][:-1]
    aligned = all(stride * heads.itemsize % 16 == 0 for stride in steps) and heads.data_ptr() % 16 == 0
    fits = heads.stride(-1) == 1 and aligned
    return heads if fits else heads.clone(memory_format=torch.contiguous_format)
