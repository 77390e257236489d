"""RACE attention of whole sequences in linear time, in float64: the specification of every faster form (R7)."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from socket_theory.core.attention import AttentionState
from socket_theory.core.checks import require_count
from socket_theory.core.hashing import Planes
from socket_theory.race.features import require_beta, require_features
from socket_theory.race.passes import CHUNK, read_causally, read_sums, sums_of_tokens
from socket_theory.race.sequences import checked_sequences, require_planes


def race_attention(
    query: NDArray[Any],
    keys: NDArray[Any],
    values: NDArray[Any],
    planes: Planes,
    beta: float,
    causal: bool = False,
    *,
    kv_start: Any = None,
    kv_len: Any = None,
    chunk: int = CHUNK,
) -> AttentionState:
    """O_i = sum_j w-bar_ij v_j / sum_j w-bar_ij, w-bar_ij = mean_l <phi_l(q_i), phi_l(k_j)> (R1, R7).

    Time L 2^P (T + N) (D + E), and memory of the outputs and a chunk's features.

    Parameters
    ----------
    query : array [..., Hq, T, D]
    keys, values : arrays [..., Hkv, N, D] and [..., Hkv, N, E]
        Hq is a multiple of Hkv; query head h reads KV head h // (Hq / Hkv).
    planes : Planes
        L tables of P planes for vectors of length D, the same for all heads.
    beta : float
        Steepness of the soft buckets. Raised, fewer keys share a query's buckets: less bias against the angular
        kernel (1 - theta / pi)^P, and more variance over planes.
    causal : bool
        Whether query t attends to the slots up to N - T + t only (T <= N, the ends aligned), and not to all.
    kv_start, kv_len : int or integers of the batch shape, optional
        The valid tokens of a sequence, as `Method.prepare` takes them; the other slots may hold anything. A causal
        query at one of them gets a value of 0 and an lse of -inf.
    chunk : int
        Tokens at a time. It changes roundings only (R7).

    Returns
    -------
    AttentionState
        value [..., Hq, T, E]; lse [..., Hq, T], the natural log of sum_j w-bar_ij.

    Raises
    ------
    TypeError, ValueError
        For arrays that are not floating NumPy ones, shapes, NaN, no key, planes of another head_dim, more than 4096
        features, or a beta that is not above 0 or too large.
    """
    given = checked_sequences(query, keys, values, causal, kv_start, kv_len)
    require_planes(planes, keys.shape[-1])
    require_features(planes.num_planes, planes.num_tables)
    law = planes.weights, require_beta(beta, planes.num_planes)
    chunk = require_count("chunk", chunk)
    seen = slice(given.first if causal else None)
    before = given.keys[:, :, seen], given.values[:, :, seen], given.valid[:, seen]
    sums = sums_of_tokens(*before, *law, chunk=chunk)
    if not causal:
        return given.state(*read_sums(given.query, sums, *law, chunk=chunk))
    own = slice(given.first, None)
    tokens = given.keys[:, :, own], given.values[:, :, own], given.valid[:, own]
    return given.state(*read_causally(given.query, *tokens, sums, *law, chunk=chunk))
