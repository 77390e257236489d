"""The operations a device must provide, and which device computes what.

Array type in, backend, array type out: NumPy arrays and torch CPU tensors go to the NumPy reference, CuPy
arrays and torch CUDA tensors to `socket_gpu`. Third parties register under the entry-point group
`socket_theory.backends` and are chosen by name.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

from socket_theory.core.selection import Budget

ENTRY_POINT_GROUP = "socket_theory.backends"
_OWN = {
    "numpy": ("socket_theory.core.numpy_backend", "NumpyBackend"),
    "cupy": ("socket_gpu.registry", "CupyBackend"),
}
_OPERATIONS: dict[tuple[str, str], Any] = {}


@runtime_checkable
class Backend(Protocol):
    """Storage and array operations over a batch: B sequences, Hq query heads, Hkv KV heads, N token slots.

    `rows` are keys and values with the valid slots of each sequence (`socket_theory.core.rows.Rows`); slots that are
    not valid are never read. With these functions a backend runs every method that needs no operations of its family
    (`register_operations`): `Dense`, `OracleTopK` and `Santa` among them. `socket_theory.testing.check_backend` tells
    whether they are right.
    """

    name: str
    slot_block: int
    """Slots that a family's packed index is padded to a multiple of; 1 where nothing is packed."""

    def store(self, array: Any, capacity: int | None) -> Any:
        """A row-major copy of keys or values [B, Hkv, N, D] for a cache, with room for `capacity` slots if it likes."""

    def to_host(self, array: Any) -> Any:
        """A NumPy array of the same values."""

    def to_device(self, array: Any) -> Any:
        """The backend's own array of the values of a NumPy array."""

    def write(self, array: Any, new: Any, ends: Any, capacity: int | None, axis: int) -> Any:
        """`array` with the T slots of `new` written behind the slot ends [B] of each sequence along `axis`.

        `axis` is -2 for keys and values, -1 for an index. In place where there is room, else in a larger array with
        room for `capacity` slots if it is given.
        """

    def take(self, array: Any, order: Any) -> Any:
        """`array` [B, ...] with its sequences selected or repeated."""

    def exact_scores(self, query: Any, rows: Any, sm_scale: float) -> Any:
        """sm_scale <q, k> less each head's largest, float32 [B, Hq, N]; -inf outside, a tie below 1e-38."""

    def select(self, scores: Any, kv_range: Any, budget: Budget, num_kv_heads: int) -> Any:
        """Kept slots, ascending, -1 padded: scores [B, Hq, N] -> int32 [B, Hq, K]."""

    def attend(self, query: Any, rows: Any, indices: Any, sm_scale: float) -> tuple[Any, Any]:
        """Exact softmax over the listed slots [B, Hq, K]: value [B, Hq, E] and natural-log lse [B, Hq]."""

    def average(self, log_weights: Any, rows: Any) -> tuple[Any, Any]:
        """Weighted mean of the valid values and log total weight: log_weights [B, Hq, N] -> [B, Hq, E], [B, Hq]."""


def missing_members(backend: Any) -> list[str]:
    """What `Backend` lists and the object has not, or has as something else than a function."""
    functions = [name for name in vars(Backend) if not name.startswith("_")]
    missing = [name for name in Backend.__annotations__ if not hasattr(backend, name)]
    return missing + [name for name in functions if not callable(getattr(backend, name, None))]


def register_operations(family: str, backend: str, operations: Any) -> None:
    """Say what computes a family's own operations, such as scores of its codes, on the backend of that name."""
    _OPERATIONS[family, backend] = operations


def operations(family: str, backend: Backend) -> Any:
    """What was registered for a family on a backend.

    Raises
    ------
    ValueError
        If nothing was.
    """
    found = _OPERATIONS.get((family, backend.name))
    if found is None:
        known = ", ".join(repr(name) for registered, name in _OPERATIONS if registered == family) or "none"
        raise ValueError(
            f"backend {backend.name!r} has no operations of {family}, and {known} have: prepare the cache with one of "
            "these, or register operations for it."
        )
    return found


def resolve_backend(kind: str, backend: Backend | str | None = None) -> Backend:
    """The backend for an array type, or the one asked for by value or entry-point name.

    Raises
    ------
    TypeError, ValueError
        For an object that lacks a function of `Backend`, or a name that no backend has.
    RuntimeError
        From `socket_gpu`, naming the missing package, driver, device or headers.
    """
    if backend is None:
        backend = {"numpy": "numpy", "torch": "numpy", "cupy": "cupy", "torch-cuda": "cupy"}.get(kind, kind)
    if not isinstance(backend, str):
        missing = missing_members(backend)
        if missing or isinstance(backend, type):
            lacks = f" lacks {', '.join(missing)}" if missing else " is a class"
            raise TypeError(f"backend={backend!r}{lacks}: pass a name, or an object with all that Backend lists.")
        return backend
    if backend in _OWN:
        module, name = _OWN[backend]
        own: Backend = getattr(import_module(module), name)()
        return own
    found = entry_points(group=ENTRY_POINT_GROUP, name=backend)
    if not found:
        raise ValueError(f"backend={backend!r} is not known: pass 'numpy', 'cupy' or an installed entry point's name.")
    loaded: Backend = next(iter(found)).load()()
    return loaded
