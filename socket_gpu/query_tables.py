"""The query's side of a score: look-up tables, in half or float."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu._compile import compiled
from socket_gpu._launch import element, launch
from socket_gpu.layout import CodeLayout
from socket_theory.hashing import QUERY_MAPS, QueryMap, query_map_bound

HALF, FLOAT, HARD = range(3)
_TABLES_PER_BLOCK = 2
# With h_max / tau up to here a half table entry lies in [0.04, 7] and a product in [0.002, 45]: 11 bits are kept.
HALF_TABLE_RANGE = 0.5


def table_mode(query_map: QueryMap, temperature: float, head_dim: int, group: int) -> int:
    """HALF where two heads share a look-up and the range rule holds, else FLOAT."""
    return HALF if group > 1 and query_map_bound(query_map, head_dim) / temperature <= HALF_TABLE_RANGE else FLOAT


def entry_words(mode: int, group: int) -> int:
    """4-byte words an entry takes for all heads of a group."""
    return -(-group // 2) if mode == HALF else group


@dataclass(frozen=True, eq=False)
class QueryTables:
    """Look-up tables of one step's queries, and the queries' own buckets."""

    mode: int
    group: int
    tables: Any
    buckets: Any

    @classmethod
    def empty(cls, layout: CodeLayout, mode: int, pairs: int, group: int) -> QueryTables:
        cupy = import_module("cupy")
        words = layout.num_tables * layout.chunks * entry_words(mode, group) * 32
        buckets = cupy.empty((pairs, group, layout.num_tables), dtype=np.uint32)
        return cls(mode, group, cupy.empty((pairs, words), dtype=np.uint32), buckets)


def tables_into(
    out: QueryTables, query: Any, planes: Any, layout: CodeLayout, query_map: QueryMap, temperature: float
) -> None:
    """Fill the tables of queries [B, Hq, D]; planes [L, P, D] as bfloat16 bits on the device."""
    kernel = compiled(
        "query_tables.cu",
        "query_tables",
        QUERY_T=element(query),
        QUERY_MAP=QUERY_MAPS.index(query_map),
        HEAD_DIM=query.shape[-1],
        MODE=out.mode,
        GROUP=out.group,
        TABLES=layout.num_tables,
        PLANES=layout.num_planes,
        TABLES_PER_BLOCK=_TABLES_PER_BLOCK,
        CHUNKS=layout.chunks,
        CHUNK_BITS=layout.chunk_bits,
        ENTRY_WORDS=entry_words(out.mode, out.group),
    )
    grid = (-(-layout.num_tables // _TABLES_PER_BLOCK), len(out.tables))
    launch(kernel, grid, 256, [query, planes, out.tables, out.buckets, 1 / temperature], "f")
