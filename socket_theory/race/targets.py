"""Angular attention of whole sequences, sharpened or not: what RACE estimates, and what it is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.angular import angles
from socket_theory.core.attention import AttentionState, weighted_state
from socket_theory.core.checks import require_positive
from socket_theory.race.sequences import checked_sequences

_AT_ONCE = 2**21


def sharpened_angular_attention(
    query: NDArray[Any],
    keys: NDArray[Any],
    values: NDArray[Any],
    gamma: float,
    causal: bool = False,
    *,
    kv_start: Any = None,
    kv_len: Any = None,
) -> AttentionState:
    """O*_i = sum_j w_ij v_j / sum_j w_ij with w_ij = (1 - theta_ij / pi)^gamma, theta_ij the angle of q_i and k_j.

    With gamma = P it is what `race_attention` tends to when first the tables and then beta grow; RACE's paper finds
    gamma of about 8 closest to softmax attention. Time T N D, memory of the outputs and some rows of weights.

    Parameters
    ----------
    gamma : float
        Any number above 0. Raised, the closest keys get more of the mass.
    query, keys, values, causal, kv_start, kv_len
        As `race_attention` takes them.

    Returns
    -------
    AttentionState
        value [..., Hq, T, E]; lse [..., Hq, T], the natural log of sum_j w_ij.

    Raises
    ------
    TypeError, ValueError
        As `race_attention`, for a gamma that is not above 0, and for a query all of whose keys point away from it, as
        its weights are 0.
    """
    given = checked_sequences(query, keys, values, causal, kv_start, kv_len)
    gamma = require_positive("gamma", gamma)
    batch, heads, tokens, dim = given.query.shape
    group = heads // given.keys.shape[1]
    value = np.zeros((batch, heads, tokens, values.shape[-1]))
    lse = np.full((batch, heads, tokens), -np.inf)
    for row, head in np.ndindex(batch, heads):
        start, stop = int(given.kv_range[row, 0]), int(given.kv_range[row].sum())
        seen, weighed = (array[row, head // group, start:stop] for array in (given.keys, given.values))
        slots = np.arange(start, stop)
        asking = np.arange(tokens)
        if causal:
            asking = asking[(asking + given.first >= start) & (asking + given.first < stop)]
        at_once = max(1, _AT_ONCE // (len(seen) * dim))
        for some in (asking[begin : begin + at_once] for begin in range(0, len(asking), at_once)):
            with np.errstate(divide="ignore"):
                log_weights = gamma * np.log1p(-angles(given.query[row, head, some], seen) / np.pi)
            if causal:
                log_weights = np.where(slots > given.first + some[:, None], -np.inf, log_weights)
            state = weighted_state(log_weights, weighed, "angular")
            value[row, head, some], lse[row, head, some] = state.value, state.lse
    return given.state(value, lse)
