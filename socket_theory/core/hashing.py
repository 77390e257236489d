"""Signed random projections of keys and queries, and the codes of their signs.

Notation of the theory pages: L tables of P planes w_lp; z_lp = <w_lp, q>; h = map(z); s_ilp = +1 where
<w_lp, k_i> >= 0, else -1. Bit p of a code (least significant first) is 1 where s = +1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.checks import read_array, require_count
from socket_theory.core.rng import Key, normal, require_rng_key

QueryMap = Literal["tanh_scaled", "tanh", "linear"]
QUERY_MAPS: tuple[QueryMap, ...] = get_args(QueryMap)
MAX_PLANES = 16
BLOCK = 64
_BLOCKS_AT_ONCE = 16
_SHORT = 2.0**-500

Float = NDArray[np.float64]
Codes = NDArray[np.uint16]


def round_to_bfloat16(x: Float) -> Float:
    """The nearest values that bfloat16 holds (ties to even, subnormals included), as float64 of the same shape."""
    exponent = np.maximum(np.frexp(x)[1], -125)
    return np.asarray(np.ldexp(np.rint(np.ldexp(x, 8 - exponent)), exponent - 8))


@dataclass(frozen=True, eq=False)
class Planes:
    """One sample of hyperplanes, shared by all KV heads of a layer.

    Parameters
    ----------
    weights : float64 array [num_tables, num_planes, head_dim]

    Raises
    ------
    ValueError
        If the array is not three-dimensional and finite, or has more than 16 planes a table.
    """

    weights: Float

    def __post_init__(self) -> None:
        given = read_array("planes", self.weights)
        if given.dtype.kind not in "fiu" and str(given.dtype) != "bfloat16":
            raise TypeError(f"planes have dtype {given.dtype}: pass real numbers, or draw with SignHash.draw(key).")
        weights = given.astype(np.float64)
        if weights.ndim != 3 or 0 in weights.shape:
            raise ValueError(
                f"planes of shape {weights.shape} were given: pass [num_tables, num_planes, head_dim], none of them 0."
            )
        if weights.shape[1] > MAX_PLANES:
            raise ValueError(f"num_planes={weights.shape[1]} was given: pass at most {MAX_PLANES}, codes are 16 bits.")
        if not np.isfinite(weights).all():
            raise ValueError("planes contain NaN or infinity: pass finite ones, or draw them with SignHash.draw(key).")
        weights.setflags(write=False)
        object.__setattr__(self, "weights", weights)

    @property
    def num_tables(self) -> int:
        """L, tables."""
        return int(self.weights.shape[0])

    @property
    def num_planes(self) -> int:
        """P, planes a table, at most 16."""
        return int(self.weights.shape[1])

    @property
    def head_dim(self) -> int:
        """D, the length of a key."""
        return int(self.weights.shape[2])


@dataclass(frozen=True)
class SignHash:
    """The law of the planes: num_tables x num_planes independent standard Gaussian vectors of length head_dim.

    Raises
    ------
    ValueError
        If a count is below 1 or num_planes exceeds 16; TypeError if one is no integer.
    """

    num_tables: int
    num_planes: int
    head_dim: int

    def __post_init__(self) -> None:
        for name in ("num_tables", "num_planes", "head_dim"):
            object.__setattr__(self, name, require_count(name, getattr(self, name)))
        if self.num_planes > MAX_PLANES:
            raise ValueError(f"num_planes={self.num_planes} was given: pass at most {MAX_PLANES}, codes are 16 bits.")

    def draw(self, key: Key) -> Planes:
        """One sample, rounded to values bfloat16 holds so that 16-bit keys are projected exactly on every backend."""
        shape = (self.num_tables, self.num_planes, self.head_dim)
        draws = normal(require_rng_key(key).fold_in("planes"), np.arange(np.prod(shape), dtype=np.uint64))
        return Planes(round_to_bfloat16(draws).reshape(shape))


def apply_query_map(projections: Float, query_map: QueryMap, head_dim: int) -> Float:
    """h = tanh(z)/sqrt(d) (`tanh_scaled`, the released code), tanh(z) (`tanh`, as published) or z (`linear`)."""
    if query_map == "tanh_scaled":
        return np.asarray(np.tanh(projections) / np.sqrt(head_dim))
    if query_map == "tanh":
        return np.asarray(np.tanh(projections))
    if query_map == "linear":
        return projections
    raise ValueError(f"query_map={query_map!r} is unknown: pass one of {', '.join(QUERY_MAPS)}.")


def query_map_bound(query_map: QueryMap, head_dim: int) -> float:
    """h_max, the supremum of |h|: 1/sqrt(d), 1 or infinity."""
    return float(np.inf) if query_map == "linear" else float(apply_query_map(np.array(np.inf), query_map, head_dim))


def project_query(query: Float, planes: Planes) -> Float:
    """z: query [..., D] -> [..., L, P]."""
    return np.asarray(np.einsum("...d,lpd->...lp", query, planes.weights, optimize=True))


def hash_keys(keys: NDArray[Any], planes: Planes, center: Float | None = None) -> Codes:
    """Sign codes of every key; `center` [..., D] is subtracted first.

    Shapes: keys [..., N, D] -> codes uint16 [..., L, N]. Source: SOCKET, index construction.

    Rows and planes go through the matrix product zero-padded to multiples of 64. A BLAS kernel then treats every
    row alike, so a key has the same bits alone or among others, and with any number of threads.
    """
    *lead, count, _ = keys.shape
    offset = None if center is None else np.broadcast_to(center, (*lead, keys.shape[-1]))
    columns = planes.num_planes * planes.num_tables
    matrix = np.zeros((planes.head_dim, -(-columns // BLOCK) * BLOCK))
    matrix[:, :columns] = planes.weights.transpose(2, 1, 0).reshape(planes.head_dim, columns)
    codes = np.empty((*lead, planes.num_tables, count), dtype=np.uint16)
    for index in np.ndindex(*lead):
        shift = 0.0 if offset is None else offset[index]
        for start in range(0, count, BLOCK * _BLOCKS_AT_ONCE):
            rows = keys[index][start : start + BLOCK * _BLOCKS_AT_ONCE].astype(np.float64) - shift
            codes[index][:, start : start + len(rows)] = _hash_rows(_lengthened(rows), matrix, planes).T
    return codes


def _lengthened(rows: Float) -> Float:
    """Rows [n, D] so short that products with planes would lose digits, times a power of two; signs stay."""
    largest = np.max(np.abs(rows), axis=1, initial=0.0)
    short = (largest > 0) & (largest < _SHORT)
    return np.where(short[:, None], np.ldexp(rows, 600), rows) if short.any() else rows


def _hash_rows(rows: Float, matrix: Float, planes: Planes) -> Codes:
    blocks = -(-len(rows) // BLOCK)
    padded = np.zeros((blocks * BLOCK, rows.shape[1]))
    padded[: len(rows)] = rows
    signs = (padded.reshape(blocks, BLOCK, -1) @ matrix >= 0).reshape(len(padded), -1)
    positive = signs[:, : planes.num_planes * planes.num_tables].reshape(len(padded), planes.num_planes, -1)
    codes = np.zeros((len(padded), planes.num_tables), dtype=np.uint16)
    for plane in range(planes.num_planes):
        codes |= positive[:, plane].astype(np.uint16) << np.uint16(plane)
    return codes[: len(rows)]


def code_signs(codes: Codes, num_planes: int) -> Float:
    """s = +-1 of every bit, least significant first: codes [...] -> [..., P]."""
    bits = codes[..., None] >> np.arange(num_planes, dtype=np.uint16)
    return np.where(bits & np.uint16(1), 1.0, -1.0)
