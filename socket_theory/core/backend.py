"""The operations a device must provide, and which device computes what.

Array type in, backend, array type out: NumPy arrays and torch CPU tensors go to the NumPy reference, CuPy
arrays and torch CUDA tensors to `socket_gpu`. Third parties register under the entry-point group
`socket_theory.backends` and are chosen by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

from socket_theory.core.hashing import Planes, QueryMap
from socket_theory.core.selection import Budget

ENTRY_POINT_GROUP = "socket_theory.backends"
_OWN = {
    "numpy": ("socket_theory.core.numpy_backend", "NumpyBackend"),
    "cupy": ("socket_gpu.core.backend", "CupyBackend"),
}


@runtime_checkable
class Backend(Protocol):
    """Array operations over a batch: B sequences, Hq query heads, Hkv KV heads, N token slots, L tables.

    `spans` is an int64 array [B, 2] of (kv_start, kv_len); slots outside a sequence's span are never read.
    Arrays of an index have the token axis last; keys and values have it second to last.
    """

    name: str
    slot_block: int
    """Slots an index is padded to a multiple of."""

    def store(self, array: Any, capacity: int | None) -> Any:
        """A row-major copy of keys or values [B, Hkv, N, D] for a cache, with room for `capacity` slots if it likes."""

    def to_host(self, array: Any) -> Any:
        """A NumPy array of the same values."""

    def to_device(self, array: Any) -> Any:
        """The backend's own array of the values of a NumPy array."""

    def hash_keys(self, keys: Any, spans: Any, planes: Planes, center: Any | None) -> Any:
        """Codes of keys [B, Hkv, N, D] in the backend's packing, [B, Hkv, L, N] in the reference."""

    def value_norms(self, values: Any, spans: Any) -> Any:
        """Norms rounded to bfloat16, as float32: values [B, Hkv, N, D] -> [B, Hkv, N]."""

    def mean_keys(self, keys: Any, spans: Any) -> Any:
        """Mean of the valid keys rounded to the keys' dtype: [B, Hkv, N, D] -> [B, Hkv, D]."""

    def soft_scores(
        self,
        query: Any,
        codes: Any,
        spans: Any,
        planes: Planes,
        query_map: QueryMap,
        temperature: float,
        shared: bool = False,
    ) -> Any:
        """Mean soft collision weight, float32: query [B, Hq, D], codes -> [B, Hq, N'], N' >= N; -inf outside the spans.

        A row that underflows everywhere is divided by its largest weight; with `shared` the rows of a KV head, which
        are to be added, all by the largest of any, and only where all of them underflow.
        """

    def log_soft_scores(
        self, query: Any, codes: Any, spans: Any, planes: Planes, query_map: QueryMap, temperature: float
    ) -> Any:
        """Natural log of the mean soft collision weight, float64 [B, Hq, N]; -inf outside the spans."""

    def hard_scores(self, query: Any, codes: Any, spans: Any, planes: Planes) -> Any:
        """Share of tables with a bucket match, float32 [B, Hq, N]; -inf outside the spans."""

    def exact_scores(self, query: Any, keys: Any, spans: Any, sm_scale: float) -> Any:
        """sm_scale <q, k> less each row's largest, float32 [B, Hq, N]; -inf outside, a tie below 1e-38."""

    def weigh_scores(self, scores: Any, value_norms: Any, shared: bool = False) -> Any:
        """Scores times norms [B, Hkv, N], float32; products that underflow are rescaled as in `soft_scores`."""

    def select(self, scores: Any, spans: Any, budget: Budget, num_kv_heads: int) -> Any:
        """Kept slots, ascending, -1 padded: scores [B, Hq, N] -> int32 [B, Hq, K]."""

    def attend(self, query: Any, keys: Any, values: Any, indices: Any, sm_scale: float) -> tuple[Any, Any]:
        """Exact softmax over the listed slots: value [B, Hq, E] and natural-log lse [B, Hq]."""

    def average(self, log_weights: Any, values: Any, spans: Any) -> tuple[Any, Any]:
        """Weighted mean of the valid values and log total weight: log_weights [B, Hq, N] -> [B, Hq, E], [B, Hq]."""

    def sample(
        self, log_weights: Any, values: Any, spans: Any, value_norms: Any | None, points: Any
    ) -> tuple[Any, Any, Any]:
        """A draw of that mean at uniforms [B, Hq, M], value-aware if norms are given: value, lse and kept slots."""

    def write_tokens(self, old: Mapping[str, Any], new: Mapping[str, Any], spans: Any, capacity: int | None) -> Any:
        """The arrays of a cache with T new tokens written behind each sequence's span, in place where there is room."""

    def take_rows(self, arrays: Mapping[str, Any], rows: Any) -> dict[str, Any]:
        """The arrays of a cache with its sequences selected or repeated."""


def resolve_backend(kind: str, backend: Backend | str | None = None) -> Backend:
    """The backend for an array type, or the one asked for by value or entry-point name.

    Raises
    ------
    ValueError
        If no backend has that name.
    RuntimeError
        From `socket_gpu`, naming the missing package, driver, device or headers.
    """
    if backend is None:
        backend = {"numpy": "numpy", "torch": "numpy", "cupy": "cupy", "torch-cuda": "cupy"}.get(kind, kind)
    if not isinstance(backend, str):
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
