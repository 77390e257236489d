"""RACE attention of whole sequences and its gradients, on a GPU: buffers, and launches that allocate nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.core._compile import compiled
from socket_gpu.core._launch import launch
from socket_gpu.race.arrays import Attention, TileSums
from socket_gpu.race.bucket_sums import add_tiles, bucket_sums_into
from socket_gpu.race.buckets import bucket_layout, tile_size
from socket_gpu.race.key_gradient import key_gradient_into
from socket_gpu.race.query_gradient import query_gradient_into
from socket_gpu.race.read import read_into

Stages = dict[str, Callable[[], None]]


class RaceSequences:
    """Buffers of one forward and one backward pass over given CuPy arrays, made once and run many times."""

    def __init__(self, query: Any, keys: Any, values: Any, planes: Any, beta: Any, causal: bool) -> None:
        cupy = import_module("cupy")
        layout = bucket_layout(planes.shape[1], planes.shape[0])
        self.of, self.causal = Attention(query, keys, values, planes, beta, layout), causal
        self.value = cupy.empty(query.shape, query.dtype)
        tile = tile_size(keys.shape[2], self.of.num_pairs, layout)
        self.sums = TileSums.empty(self.of.num_pairs, keys.shape[2], tile, layout, self.of.head_dim)
        self.of_queries: TileSums | None = None

    def forward_stages(self) -> Stages:
        of, sums = self.of, self.sums
        return {
            "sums of keys": partial(bucket_sums_into, sums, of, of.keys, of.values, None),
            "tiles of keys": partial(add_tiles, sums, False),
            "read": partial(read_into, self.value, of, sums, self.causal),
        }

    def backward_stages(self, above: Any) -> Stages:
        cupy, of = import_module("cupy"), self.of
        if self.of_queries is None:
            self.d_query, self.d_keys, self.d_values = (
                cupy.empty(x.shape, x.dtype) for x in (of.query, of.keys, of.values)
            )
            self.d_beta = cupy.empty((), np.float32)
            tokens, pairs = of.query.shape[2], of.num_pairs
            self.of_queries = TileSums.empty(pairs, tokens, self.sums.tile, of.layout, of.head_dim)
            self.rows = cupy.empty((pairs * of.group, tokens, 2), np.float32)
            self.by_queries = cupy.empty((pairs * of.group, self.of_queries.tiles), np.float32)
            self.by_keys = cupy.empty((pairs, self.sums.tiles), np.float32)
        queries, causal = self.of_queries, self.causal
        return {
            "query gradient": partial(
                query_gradient_into, self.d_query, self.rows, self.by_queries, of, above, self.sums, causal
            ),
            "sums of queries": partial(bucket_sums_into, queries, of, of.query, above, self.rows),
            "tiles of queries": partial(add_tiles, queries, True),
            "key gradient": partial(
                key_gradient_into, self.d_keys, self.d_values, self.by_keys, of, above, self.rows, queries, causal
            ),
            "beta": self._beta,
        }

    def _beta(self) -> None:
        first, second = self.by_queries, self.by_keys
        counts = {"first_count": first.size, "second_count": second.size}
        launch(compiled("race/total.cu", "total"), (1,), 256, first=first, second=second, total=self.d_beta, **counts)
