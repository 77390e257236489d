"""The one place where arrays are checked and scalars are cast before a kernel sees them."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

ELEMENTS = {"float16": "__half", "bfloat16": "__nv_bfloat16", "float32": "float", "float64": "double"}
_SHARED_LIMIT = 48 * 1024
MOST_ROWS = 65535


def element(array: Any) -> str:
    """The C++ element type of a float array."""
    name = str(array.dtype)
    if name not in ELEMENTS:
        raise TypeError(f"an array of {name} reached a kernel: pass one of {', '.join(ELEMENTS)}.")
    return ELEMENTS[name]


def checked(
    name: str,
    array: Any,
    dtype: Any | None = None,
    shape: tuple[int, ...] | None = None,
    alignment: int = 1,
    contiguous: bool = True,
) -> Any:
    """`array` if it is a CuPy array of this dtype, shape and alignment in bytes on the current device, C-contiguous too
    unless the kernel knows its strides.

    Raises
    ------
    TypeError, ValueError
        Naming what was given and what to pass.
    """
    cupy = import_module("cupy")
    if not isinstance(array, cupy.ndarray):
        raise TypeError(f"{name} is of type {type(array).__name__}: pass a CuPy array.")
    if dtype is not None and str(array.dtype) != str(dtype):
        raise TypeError(f"{name} has dtype {array.dtype}: pass {dtype}.")
    if shape is not None and tuple(array.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {tuple(array.shape)}: pass {tuple(shape)}.")
    if array.device.id != cupy.cuda.runtime.getDevice():
        raise ValueError(f"{name} is on device {array.device.id}: make that device current, or copy the array.")
    if array.data.ptr % alignment:
        raise ValueError(f"{name} starts between multiples of {alignment} bytes: pass a copy of it.")
    if contiguous and not array.flags.c_contiguous:
        raise ValueError(f"{name} is not C-contiguous: pass cupy.ascontiguousarray({name}).")
    return array


def aligned(array: Any) -> Any:
    """`array`, or a copy of it where it does not start at a multiple of 16 bytes."""
    return array.copy() if array.data.ptr % 16 else array


def row_major(array: Any) -> Any:
    """`array`, or a row-major copy of it that starts at a multiple of 16 bytes."""
    return aligned(import_module("cupy").ascontiguousarray(array))


def on_device(kv_range: Any) -> Any:
    """Spans on the device, int64 [B, 2]."""
    return import_module("cupy").asarray(kv_range, dtype=np.int64)


def settle() -> None:
    """Wait for the current stream, before what was launched on it is used on another."""
    import_module("cupy").cuda.get_current_stream().synchronize()


def struct(**fields: Any) -> Any:
    """The fields of a kernel's struct in their order: arrays, None for a null pointer, numbers, and structs inside.

    An int is an `int` of C++ and a float a `float`; NumPy's scalars stand for their own types.
    """
    types, values = zip(*(_field(name, value) for name, value in fields.items()), strict=True)
    return np.array(values, _layout(tuple(fields), types))


def _field(name: str, value: Any) -> tuple[Any, Any]:
    """The type of a field, and its value."""
    kind = type(value)
    if kind is int or kind is bool:
        return np.int32, value
    if kind is float:
        return np.float32, value
    if value is None:
        return np.uint64, 0
    if isinstance(value, np.generic):
        return kind, value
    if kind is np.ndarray and value.dtype.names:
        return value.dtype, value[()]
    return np.uint64, checked(name, value).data.ptr


@cache
def _layout(names: tuple[str, ...], dtypes: tuple[Any, ...]) -> Any:
    return np.dtype(list(zip(names, dtypes, strict=True)), align=True)


def launch(kernel: Any, grid: tuple[int, ...], block: int, shared_bytes: int = 0, /, **params: Any) -> None:
    """Launch on the current stream a kernel that takes one struct, with these fields in their order: see `struct`."""
    if len(grid) > 1 and grid[1] > MOST_ROWS:
        raise ValueError(f"{grid[1]} sequences times heads were given: pass at most {MOST_ROWS} at once.")
    if shared_bytes + kernel.shared_size_bytes > _SHARED_LIMIT and kernel.max_dynamic_shared_size_bytes < shared_bytes:
        kernel.max_dynamic_shared_size_bytes = shared_bytes
    kernel(grid, (block,), (struct(**params),), shared_mem=shared_bytes)


def shared_memory_limit() -> int:
    """Bytes of shared memory that a block may have on the current device."""
    return _attribute("MaxSharedMemoryPerBlockOptin", current_device())


def multiprocessors() -> int:
    """Streaming multiprocessors of the current device."""
    return _attribute("MultiProcessorCount", current_device())


def compute_capability() -> int:
    """The current device's compute capability times ten: 80, 90."""
    return int(import_module("cupy").cuda.Device(current_device()).compute_capability)


def current_device() -> int:
    """The current device's number."""
    return int(import_module("cupy").cuda.runtime.getDevice())


@cache
def _attribute(name: str, device: int) -> int:
    return int(import_module("cupy").cuda.Device(device).attributes[name])
