"""N12: the softmax of unbiased scores is biased, by how much and at which rate."""

from __future__ import annotations

from functools import partial

import numpy as np

from socket_theory.claims.engine import Claim, Context, Measurement, combine, inequality
from socket_theory.claims.santa_problems import Float, largest_gap
from socket_theory.claims.santa_scores import QUERY, SAMPLERS, VECTORS, outcomes
from socket_theory.query_sampling import (
    firing_probabilities,
    query_variance,
    sampled_query,
    score_covariance,
    softmax_bias,
)


def _softmax(scores: Float) -> Float:
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def _bias(context: Context, share: float) -> Measurement:
    """sum_j |E p^_j - p_j - share second order| against 7/48 E r^3, r the range of the errors of the scores."""
    keys, parts = 0.005 * context.generator().standard_normal((6, 4)), []
    law = _softmax(keys @ QUERY)
    for vectors in VECTORS:
        for sampler in SAMPLERS:
            hits, probability = outcomes(firing_probabilities(QUERY), vectors, sampler)
            drawn = sampled_query(QUERY, hits, vectors)
            exact, spread = probability @ _softmax(drawn @ keys.T) - law, query_variance(QUERY, vectors, sampler)
            predicted = softmax_bias(law, score_covariance(keys, spread, 1.0))
            third = 7 / 48 * probability @ np.ptp((drawn - QUERY) @ keys.T, axis=1) ** 3
            parts.append(inequality(np.abs(exact - share * predicted).sum(), third))
    return combine(*parts)


def _rate(context: Context, order: int) -> Measurement:
    """Averaged over |q_i| uniform on [0, max|q|], by Gauss's rule inside the strata of 16 vectors."""
    nodes, shares = np.polynomial.legendre.leggauss(3)
    law = ((np.arange(16)[:, None] + (nodes + 1) / 2) / 16).ravel()
    query, shares = np.append(law, 1.0), np.tile(shares, 16) / 32
    keys = context.generator().standard_normal((5, 1))
    softmax, parts = _softmax(keys[:, 0]), []
    for sampler in SAMPLERS:
        power = 1 if sampler == "iid" else order
        for vectors in (1, 2, 4, 8, 16):
            mean = shares @ query_variance(query, vectors, sampler)[:-1]
            bias = softmax_bias(softmax, score_covariance(keys, np.array([mean]), 1.0))
            expected = softmax_bias(softmax, score_covariance(keys, np.ones(1), 1.0)) / (6 * vectors**power)
            parts.append(largest_gap(bias, expected))
    return combine(*parts)


CLAIMS = (
    Claim(
        id="N12.second-order",
        title="Softmax of sampled scores is biased",
        statement="E p-hat_j - p_j is p_j (C_jj/2 - (Cp)_j + p'Cp - sum_k p_k C_kk/2) but for a remainder whose sum "
        "over j of absolute values is at most 7/48 E r^3, r the range over keys of the errors of the scores.",
        source="own proof",
        kind="inequality",
        wrong="softmax of unbiased scores called unbiased",
        check=partial(_bias, share=1.0),
        control=partial(_bias, share=0.0),
    ),
    Claim(
        id="N12.rate",
        title="Rate of that bias",
        statement="Averaged over |q_i| uniform on [0, max|q|], Var q-hat_i is max|q|^2/(6B) independently and "
        "max|q|^2/(6B^2) in strata: twice the vectors leave 1/2 and 1/4 of the bias to second order.",
        source="own proof",
        kind="identity",
        wrong="1/B for strata",
        check=partial(_rate, order=2),
        control=partial(_rate, order=1),
    ),
)
