"""The collision of a query with a code: soft (a product over bits) and hard (all bits agree)."""

from __future__ import annotations

import numpy as np

from socket_theory.core.hashing import Codes, Float

_CHUNK_BITS = 8
_LOW_CHUNK = np.uint16(2**_CHUNK_BITS - 1)
_CHUNK_TOKENS = 8192


def log_bit_probabilities(mapped: Float, temperature: float) -> tuple[Float, Float]:
    """log sigma(-2h/tau) and log sigma(2h/tau): the soft probability that bit p of the query is 0 or 1 (S1)."""
    exponent = 2 * mapped / temperature
    return -np.logaddexp(0, exponent), -np.logaddexp(0, -exponent)


def log_soft_collisions(mapped: Float, codes: Codes, temperature: float) -> Float:
    """ln w_i^(l) = sum_p ln sigma(2 h_lp s_ilp / tau): the definition, one bit at a time.

    Shapes: mapped [L, P], codes [L, N] -> [L, N]. Source: S1.
    """
    zero, one = log_bit_probabilities(mapped, temperature)
    total = np.zeros(codes.shape)
    for plane in range(mapped.shape[-1]):
        bit = (codes >> np.uint16(plane)) & np.uint16(1)
        total += np.where(bit == 1, one[..., plane, None], zero[..., plane, None])
    return total


def log_soft_collision_scores(mapped: Float, codes: Codes, temperature: float) -> Float:
    """ln w-bar_i in the log domain, finite where w-bar underflows.

    Shapes: mapped [L, P], codes [L, N] -> [N].
    """
    scores = np.empty(codes.shape[1])
    for start in range(0, codes.shape[1], _CHUNK_TOKENS):
        chunk = slice(start, start + _CHUNK_TOKENS)
        scores[chunk] = np.logaddexp.reduce(log_soft_collisions(mapped, codes[:, chunk], temperature), axis=0)
    return np.asarray(scores - np.log(len(codes)))


def soft_collision_scores(mapped: Float, codes: Codes, temperature: float) -> Float:
    """w-bar_i, the mean over tables of w_i^(l), by look-ups in tables of at most 2^8 products (S1).

    Shapes: mapped [L, P], codes [L, N] -> [N].
    """
    low, *high = _chunk_tables(mapped, temperature)
    total = np.zeros(codes.shape[1])
    for start in range(0, codes.shape[1], _CHUNK_TOKENS):
        chunk = slice(start, start + _CHUNK_TOKENS)
        for table, row in enumerate(codes[:, chunk]):
            weight = low[table].take(row & _LOW_CHUNK, mode="clip")
            for entries in high:
                weight *= entries[table].take(row >> np.uint16(_CHUNK_BITS), mode="clip")
            total[chunk] += weight
    return total / len(codes)


def soft_collisions(mapped: Float, codes: Codes, temperature: float) -> Float:
    """w_i^(l) of every table and key, by the same look-ups.

    Shapes: mapped [L, P], codes [L, N] -> [L, N].
    """
    low, *high = _chunk_tables(mapped, temperature)
    weights = np.empty(codes.shape)
    for table, row in enumerate(codes):
        low[table].take(row & _LOW_CHUNK, mode="clip", out=weights[table])
        for entries in high:
            weights[table] *= entries[table].take(row >> np.uint16(_CHUNK_BITS), mode="clip")
    return weights


def _chunk_tables(mapped: Float, temperature: float) -> list[Float]:
    zero, one = log_bit_probabilities(mapped, temperature)
    tables = []
    for first in range(0, mapped.shape[1], _CHUNK_BITS):
        table = np.zeros((len(mapped), 1))
        for plane in range(first, min(first + _CHUNK_BITS, mapped.shape[1])):
            table = np.concatenate([table + zero[:, plane, None], table + one[:, plane, None]], axis=1)
        tables.append(np.exp(table))
    return tables


def hard_collision_scores(projections: Float, codes: Codes) -> Float:
    """The fraction of tables whose bucket the key shares with the query (S3).

    Shapes: projections z [L, P], codes [L, N] -> [N].
    """
    place = np.uint16(1) << np.arange(projections.shape[1], dtype=np.uint16)
    bucket = ((projections >= 0) * place).sum(axis=1).astype(np.uint16)
    return np.asarray(np.mean(codes == bucket[:, None], axis=0))
