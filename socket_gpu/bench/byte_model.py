"""The bytes that each operation has to move through device memory if lists do not overlap: a model, not a counter.

Counted are the cache's rows and index, once for everyone who has to read or write them. Not counted is what a step
makes and uses up itself and what the L2 cache can hold: queries, look-up tables, scores, survivors, indices, outputs.
"""

from __future__ import annotations

from socket_gpu.bench.shape import Shape

ELEMENT = 2


def row_bytes(shape: Shape) -> int:
    """A key and a value."""
    return 2 * shape.head_dim * ELEMENT


def socket_bytes(shape: Shape, kept_tokens: int, index_bytes_a_token: int) -> int:
    """The index (codes and norms) of every token of every KV head; keys and values of each query head's own list."""
    index = shape.batch * shape.num_kv_heads * shape.kv_len * index_bytes_a_token
    return index + shape.batch * shape.num_qo_heads * kept_tokens * row_bytes(shape)


def santa_bytes(shape: Shape, value_rows: int) -> int:
    """Every key, and `value_rows` values: over all KV heads, those that some query head of the KV head drew."""
    keys = shape.batch * shape.num_kv_heads * shape.kv_len
    return (keys + value_rows) * row_bytes(shape) // 2


def dense_bytes(shape: Shape) -> int:
    """Every key and value."""
    return shape.batch * shape.num_kv_heads * shape.kv_len * row_bytes(shape)


def build_bytes(shape: Shape, index_bytes_a_token: int) -> int:
    """Every key and value read, their index written."""
    return shape.batch * shape.num_kv_heads * shape.kv_len * (row_bytes(shape) + index_bytes_a_token)


def append_bytes(shape: Shape, index_bytes_a_token: int) -> int:
    """One new key and value for every KV head, read and written, and their index written."""
    return shape.batch * shape.num_kv_heads * (2 * row_bytes(shape) + index_bytes_a_token)
