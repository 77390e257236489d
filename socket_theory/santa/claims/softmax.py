"""N12: the softmax of unbiased scores is biased, by how much and at which rate."""

from __future__ import annotations

from functools import partial

import numpy as np

from socket_theory.core.claim import Claim, Context, Measurement, combine, inequality
from socket_theory.santa.claims.problems import Float, gauss_in_strata, largest_gap
from socket_theory.santa.claims.scores import QUERY, SETTINGS, outcomes
from socket_theory.santa.query import (
    QuerySampler,
    firing_probabilities,
    query_variance,
    sampled_query,
    score_covariance,
    softmax_bias,
)


def softmax(scores: Float) -> Float:
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def _bias(context: Context, share: float) -> Measurement:
    """sum_j |E p^_j - p_j - share second order| against 7/48 E r^3, r the range of the errors of the scores."""
    keys, parts = 0.005 * context.generator().standard_normal((6, 4)), []
    law = softmax(keys @ QUERY)
    for vectors, sampler in SETTINGS:
        hits, probability = outcomes(firing_probabilities(QUERY), vectors, sampler)
        drawn = sampled_query(QUERY, hits, vectors)
        exact, spread = probability @ softmax(drawn @ keys.T) - law, query_variance(QUERY, vectors, sampler)
        predicted = softmax_bias(law, score_covariance(keys, spread, 1.0))
        third = 7 / 48 * probability @ np.ptp((drawn - QUERY) @ keys.T, axis=1) ** 3
        parts.append(inequality(np.abs(exact - share * predicted).sum(), third))
    return combine(*parts)


def _averaged_bias(keys: Float, vectors: int, sampler: QuerySampler) -> Float:
    """E softmax(q^K') - softmax(qK') of q = (1, x), averaged over x uniform on [0, 1]."""
    mean = np.zeros(len(keys))
    for x, share in zip(*gauss_in_strata(16, 6), strict=True):
        query = np.array([1.0, x])
        hits, probability = outcomes(firing_probabilities(query), vectors, sampler)
        drawn = sampled_query(query, hits, vectors)
        mean += share * (probability @ softmax(drawn @ keys.T) - softmax(keys @ query))
    return mean


def _rate(context: Context, order: int) -> Measurement:
    """The exact bias in up to 16 strata against the slopes at the ends, and that of up to 8 independent vectors."""
    keys, parts = context.generator().standard_normal((6, 2)), []
    fixed, moving = keys.T
    ends = softmax(fixed + np.array([[0.0], [1.0]]) * moving)
    slopes = ends * (moving - ends @ moving[:, None])
    strata = {vectors: _averaged_bias(keys, vectors, "stratified") for vectors in (1, 2, 4, 8, 16)}
    for vectors, bias in strata.items():
        rest = np.abs(bias - (slopes[1] - slopes[0]) / (12 * vectors**order)).sum()
        parts.append(inequality(rest, np.ptp(moving) ** 4 / (576 * vectors**4)))
    for vectors in (2, 4, 8):
        mixed = (strata[1] + vectors * strata[vectors]) / (vectors + 1)
        parts.append(largest_gap(_averaged_bias(keys, vectors, "iid"), mixed))
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
        statement="Averaged over x = |q_i|/max|q| uniform on [0, 1], the other features certain, the bias b_B of "
        "strata is (p'(1) - p'(0))/(12 B^2), p as a function of x, but for a remainder whose sum over j of absolute "
        "values is at most r^4/(576 B^4), r the range over keys of alpha max|q| k_ji. That of independent firing is "
        "(b_1 + B b_B)/(B + 1). So twice the vectors leave 1/4 and 1/2 of it where B is large.",
        source="own proof, by Euler and Maclaurin's formula",
        kind="inequality",
        wrong="1/B for strata",
        check=partial(_rate, order=2),
        control=partial(_rate, order=1),
    ),
)
