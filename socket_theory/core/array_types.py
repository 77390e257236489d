"""Which library an array is of, and the one border between torch and the arrays that backends compute with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from socket_theory.core.checks import bfloat16, require_dense, require_plain


def array_type(array: Any, name: str = "an argument") -> str:
    """ "numpy", "cupy", "torch" (CPU) or "torch-cuda", told from the type without importing anything.

    Raises
    ------
    TypeError
        For anything that is not a dense array of one of these libraries: masked, sparse, nested and meta ones too.
    """
    library = type(array).__module__.split(".")[0]
    if library == "torch" and hasattr(array, "device"):
        require_dense(name, array)
        return "torch" if array.device.type == "cpu" else f"torch-{array.device.type}"
    if library == "cupy" and hasattr(array, "dtype"):
        return library
    if isinstance(array, np.ndarray | np.generic):
        require_plain(name, array)
        return "numpy"
    given = f"{library}.{type(array).__name__}"
    raise TypeError(f"{name} of type {given} was given: pass a NumPy, CuPy or torch array.")


def common_array_type(**arrays: Any) -> str:
    """The one array type of all arguments that are not None, or TypeError naming the two that differ."""
    found = {name: array_type(array, name) for name, array in arrays.items() if array is not None}
    first, kind = next(iter(found.items()))
    for name, other in found.items():
        if other != kind:
            raise TypeError(f"{first} is a {kind} array and {name} a {other} array: pass one kind.")
    return kind


def to_native(name: str, array: Any) -> Any:
    """A torch tensor as the backend's own array through DLPack, without a copy; other arrays without a subclass.

    Raises
    ------
    TypeError
        As `array_type`.
    ValueError
        If the tensor requires grad.
    """
    kind = array_type(array, name)
    if not kind.startswith("torch"):
        return np.asarray(array) if kind == "numpy" else array
    if array.requires_grad:
        raise ValueError(f"{name} requires grad, and these estimators are not differentiable: pass {name}.detach().")
    library = np if kind == "torch" else import_module("cupy")
    array = array.resolve_neg()
    narrow = str(array.dtype) == "torch.bfloat16"
    try:
        native = library.from_dlpack(array.view(import_module("torch").int16) if narrow else array)
    except RuntimeError as error:
        raise TypeError(f"{name} has no memory of its own (torch: {error}): call outside of vmap.") from error
    return native.view(bfloat16()) if narrow else native


def from_native(array: Any, kind: str) -> Any:
    """The inverse of `to_native` for an array type."""
    if not kind.startswith("torch"):
        return array
    torch = import_module("torch")
    if str(array.dtype) == "bfloat16":
        return torch.from_dlpack(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_dlpack(array)


@contextmanager
def callers_stream(kind: str) -> Iterator[None]:
    """Launch on torch's current stream where the caller's arrays are CUDA tensors."""
    if kind != "torch-cuda":
        yield
        return
    with import_module("cupy").cuda.Stream.from_external(import_module("torch").cuda.current_stream()):
        yield
