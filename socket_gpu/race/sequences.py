"""RACE attention of whole sequences and its gradients, on a GPU: buffers, and launches that allocate nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from importlib import import_module
from typing import Any

from socket_gpu.core._compile import compiled
from socket_gpu.core._launch import checked, launch
from socket_gpu.race.arrays import Attention, TileSums
from socket_gpu.race.bucket_sums import add_tiles, bucket_sums_into
from socket_gpu.race.key_gradient import key_gradient_into
from socket_gpu.race.limits import checked_heads, layout_of, require_shape, sums_shape, tile_of
from socket_gpu.race.query_gradient import query_gradient_into
from socket_gpu.race.read import read_into
from socket_theory.core.checks import require_flag
from socket_theory.race.operations import Empty, SequenceShape

Stages = dict[str, Callable[[], None]]
_SUMS = {"mass": 3, "weighted": 4}


def empty_array(name: str, shape: tuple[int, ...], dtype: str) -> Any:
    """A CuPy array of this shape and dtype."""
    element = import_module("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype
    return import_module("cupy").empty(shape, element)


class RaceSequences:
    """RACE attention of whole sequences on a GPU and its gradients: O_i = sum_j w_ij v_j / sum_j w_ij, with w_ij the
    soft collisions of query and key that `socket_theory.race_attention` defines.

    The passes may be run again and again, and captured in a CUDA graph after they ran once: they allocate nothing, do
    not wait, and read what the given arrays hold by then. They are launched on CuPy's current stream. A pass has no
    sums that depend on the order in which blocks run, so the same numbers give the same bits.

    Products are of bfloat16 on tensor cores, added up in float32. A number that bfloat16 does not hold is taken apart
    into two that it holds, which keep 16 bits, and a query or key of float32 into three: values in float32 are off by
    2e-6 to 4e-6 of their root mean square.

    Parameters
    ----------
    query : CuPy array [B, Hq, T, D]
    keys, values : CuPy arrays [B, Hkv, N, D]
        bfloat16, float16 or float32, one for all three, and D is 64 or 128. Query head h reads KV head
        h // (Hq / Hkv). Any strides whose rows start at multiples of 16 bytes, with their elements side by side.
    planes : CuPy array [L, P, D]
        float32, P planes for each of L tables: at most 32 in all, and at most 256 features L 2^P.
    beta : CuPy array []
        float32, above 0 and at most 30 / P, which is not looked at.
    causal : bool
        Whether query i sees the keys up to its own only; T is N then.
    empty : callable
        Makes the arrays below and those in between, from a name, a shape and a dtype's name. CuPy's memory if not
        given.

    Attributes
    ----------
    value : array [B, Hq, T, D]
        The outputs, in the dtype of queries.
    sums : TileSums
        Over the buckets of keys: of the tiles before each (`add_tiles`), and of all.
    d_query, d_keys, d_values : arrays
        Gradients, of the shapes and the dtype of queries, keys and values.
    d_beta : array []
        float32. There is no gradient of planes.

    Raises
    ------
    TypeError, ValueError
        For what differs from the above, and for planes that need more shared memory than the device has. NaN and
        infinity are not looked for, and spread to the outputs whose sums they enter; causal, also to those of up to 15
        tokens before, by a product with 0.
    """

    def __init__(
        self, query: Any, keys: Any, values: Any, planes: Any, beta: Any, causal: bool, empty: Empty = empty_array
    ) -> None:
        given = {"query": query, "keys": keys, "values": values}
        for name, array in {**given, "planes": planes}.items():
            checked(name, array, contiguous=False)
        self.causal, dtype = require_flag("causal", causal), str(query.dtype)
        self.shape = SequenceShape(query.shape, keys.shape, values.shape, planes.shape, dtype, self.causal)
        require_shape(self.shape)
        for name, array in given.items():
            checked_heads(name, array, dtype)
        checked("planes", planes, "float32"), checked("beta", beta, "float32", ())
        self.of = Attention(query, keys, values, planes, beta, layout_of(self.shape))
        self._empty = empty

    def forward(self) -> None:
        """Fill `value` and `sums`."""
        for stage in self.forward_stages().values():
            stage()

    def backward(self, above: Any) -> None:
        """Fill the gradients for the gradient `above` of the value, with the `sums` that `forward` left."""
        for stage in self.backward_stages(above).values():
            stage()

    def forward_stages(self) -> Stages:
        """The launches of `forward` in their order, by name."""
        of, sums = self.of, self.sums
        return {
            "sums of keys": partial(bucket_sums_into, sums, of, of.keys, of.values, None),
            "tiles of keys": partial(add_tiles, sums, False),
            "read": partial(read_into, self.value, of, sums, self.causal),
        }

    def backward_stages(self, above: Any) -> Stages:
        """The launches of `backward` in their order, by name.

        Raises
        ------
        TypeError, ValueError
            For a gradient `above` of other strides than queries may have, or another shape or dtype than theirs.
        """
        checked_heads("above", above, self.shape.dtype, self.shape.query)
        of, queries, causal = self.of, self.of_queries, self.causal
        into_query = self.d_query, self.rows, self._by_queries
        into_keys = self.d_keys, self.d_values, self._by_keys
        return {
            "query gradient": partial(query_gradient_into, *into_query, of, above, self.sums, causal),
            "sums of queries": partial(bucket_sums_into, queries, of, of.query, above, self.rows),
            "tiles of queries": partial(add_tiles, queries, True),
            "key gradient": partial(key_gradient_into, *into_keys, of, above, self.rows, queries, causal),
            "beta": partial(self._add_up, self.d_beta),
        }

    @cached_property
    def value(self) -> Any:
        return self._empty("value", self.shape.query, self.shape.dtype)

    @cached_property
    def sums(self) -> TileSums:
        return self._sums("")

    @cached_property
    def d_query(self) -> Any:
        return self._empty("d_query", self.shape.query, self.shape.dtype)

    @cached_property
    def d_keys(self) -> Any:
        return self._empty("d_keys", self.shape.keys, self.shape.dtype)

    @cached_property
    def d_values(self) -> Any:
        return self._empty("d_values", self.shape.values, self.shape.dtype)

    @cached_property
    def d_beta(self) -> Any:
        return self._empty("d_beta", (), "float32")

    @cached_property
    def of_queries(self) -> TileSums:
        """Over the buckets of queries, as the gradients of keys and values need them: of the tiles behind each."""
        return self._sums("of_queries_")

    @cached_property
    def rows(self) -> Any:
        """1 / Den and -<above, O> of every query, float32 [B * Hq, T, 2]."""
        batch, heads, tokens, _ = self.shape.query
        return self._empty("rows", (batch * heads, tokens, 2), "float32")

    @cached_property
    def _by_queries(self) -> Any:
        """What every block of `query_gradient` adds to the gradient of beta, float32 [B * Hq, tiles]."""
        batch, heads, _, _ = self.shape.query
        return self._empty("by_queries", (batch * heads, self.of_queries.tiles), "float32")

    @cached_property
    def _by_keys(self) -> Any:
        return self._empty("by_keys", (self.of.num_pairs, self.sums.tiles), "float32")

    def _sums(self, prefix: str) -> TileSums:
        shape = sums_shape(self.shape)
        arrays = {name: self._empty(prefix + name, shape[:end], "float32") for name, end in _SUMS.items()}
        return TileSums(**arrays, tile=tile_of(self.shape))

    def _add_up(self, total: Any) -> None:
        first, second = self._by_queries, self._by_keys
        counts = {"first_count": first.size, "second_count": second.size}
        launch(compiled("race/total.cu", "total"), (1,), 256, first=first, second=second, total=total, **counts)
