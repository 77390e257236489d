"""N11: Bernoulli queries and scores, by enumeration of all outcomes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import get_args

import numpy as np

from socket_theory.core.claim import Claim, Context, Measurement, combine
from socket_theory.santa.claims.problems import Float, gauss_in_strata, independent_uniforms, largest_gap, mildest
from socket_theory.santa.query import (
    QuerySampler,
    features_read,
    firing_probabilities,
    group_magnitudes,
    iid_hits,
    query_variance,
    sampled_query,
    score_covariance,
    shared_query_variance,
    shared_sampled_queries,
    stratified_hits,
)
from socket_theory.santa.samplers import Int

Estimate = Callable[[Float, Int, int], Float]
OfQuery = Callable[[Float, int, QuerySampler], Float]
# Strata have few outcomes whatever their number, so they are also enumerated at many.
SETTINGS: tuple[tuple[int, QuerySampler], ...] = (
    *((vectors, sampler) for vectors in (1, 2, 3) for sampler in get_args(QuerySampler)),
    (37, "stratified"),
)
QUERY = np.array([1.3, -0.4, 0.0, 0.9])
GROUP = np.array([QUERY, [0.2, -1.1, 0.0, -0.3], [-0.7, 0.8, 0.0, 0.1]])


def outcomes(probabilities: Float, vectors: int, sampler: QuerySampler) -> tuple[Int, Float]:
    """All hits [M, D] of features that fire with these probabilities [D], and the probability of each [M]."""
    if sampler == "stratified":
        points, probability = independent_uniforms([[1 - vectors * p % 1] for p in probabilities])
        return stratified_hits(probabilities, vectors, points), probability
    points, probability = independent_uniforms([[p] for p in np.tile(probabilities, vectors)])
    return iid_hits(probabilities, points.reshape(len(points), vectors, -1)), probability


def _mean(query: Float, vectors: int, sampler: QuerySampler, estimate: Estimate = sampled_query) -> Float:
    hits, probability = outcomes(firing_probabilities(query), vectors, sampler)
    return np.asarray(probability @ estimate(query, hits, vectors))


def _clipped(query: Float, vectors: int, sampler: QuerySampler) -> Float:
    limit = 0.7 * np.max(np.abs(query))
    hits, probability = outcomes(np.minimum(np.abs(query) / limit, 1), vectors, sampler)
    return np.asarray(np.sign(query) * limit * (probability @ hits) / vectors)


def _signs_dropped(query: Float, hits: Int, vectors: int) -> Float:
    return np.abs(sampled_query(query, hits, vectors))


def _over_hits(query: Float, hits: Int, vectors: int) -> Float:
    return sampled_query(query, np.minimum(hits, 1), 1)


def _query(context: Context, mean: OfQuery) -> Measurement:
    """Of the query above, and of random ones."""
    drawn = context.generator().standard_normal((context.samples(3), 4))
    return combine(*(largest_gap(mean(q, *setting), q) for q in (QUERY, *drawn) for setting in SETTINGS))


def _query_control(context: Context) -> Measurement:
    wrong = (_clipped, partial(_mean, estimate=_signs_dropped), partial(_mean, estimate=_over_hits))
    return mildest(*(_query(context, mean) for mean in wrong))


def _covariance(context: Context, variance: OfQuery) -> Measurement:
    """Of five scores, all pairs; a diagonal would do for the query."""
    keys, parts = context.generator().standard_normal((5, 4)), []
    for vectors, sampler in SETTINGS:
        hits, probability = outcomes(firing_probabilities(QUERY), vectors, sampler)
        errors = 0.5 * (sampled_query(QUERY, hits, vectors) - QUERY) @ keys.T
        exact = (probability[:, None] * errors).T @ errors
        parts.append(largest_gap(exact, score_covariance(keys, variance(QUERY, vectors, sampler), 0.5)))
    return combine(*parts)


def _iid_for_both(query: Float, vectors: int, sampler: QuerySampler) -> Float:
    return query_variance(query, vectors, "iid")


def _rate(context: Context, order: int) -> Measurement:
    """Averaged over |q_i| uniform on [0, max|q|], by Gauss's rule inside the strata of 16 vectors."""
    points, shares = gauss_in_strata(16, 3)
    query, parts = np.append(points, 1.0), []
    powers: dict[QuerySampler, int] = {"iid": 1, "stratified": order}
    for sampler, power in powers.items():
        for vectors in (1, 2, 4, 8, 16):
            mean = np.sum(shares * query_variance(query, vectors, sampler)[:-1])
            parts.append(largest_gap(mean, 1 / (6 * vectors**power)))
    return combine(*parts)


def _reads(context: Context, inclusion: OfQuery) -> Measurement:
    law, parts = firing_probabilities(QUERY), []
    for vectors, sampler in SETTINGS:
        hits, probability = outcomes(law, vectors, sampler)
        parts.append(largest_gap(probability @ (hits > 0), inclusion(law, vectors, sampler)))
    return combine(*parts)


def _iid_reads(law: Float, vectors: int, sampler: QuerySampler) -> Float:
    return features_read(law, vectors, "iid")


def _shared(context: Context, estimate: Estimate) -> Measurement:
    """Means and variances of three heads that share a draw."""
    parts = []
    for vectors, sampler in SETTINGS:
        hits, probability = outcomes(firing_probabilities(group_magnitudes(GROUP)), vectors, sampler)
        drawn = np.stack([estimate(GROUP, row, vectors) for row in hits])
        variance = np.tensordot(probability, (drawn - GROUP) ** 2, 1)
        parts.append(largest_gap(np.tensordot(probability, drawn, 1), GROUP))
        parts.append(largest_gap(variance, shared_query_variance(GROUP, vectors, sampler)))
    return combine(*parts)


def _not_over_mean(queries: Float, hits: Int, vectors: int) -> Float:
    return np.asarray(queries * sampled_query(group_magnitudes(queries), hits, vectors))


CLAIMS = (
    Claim(
        id="N11.query",
        title="Bernoulli query",
        statement="q-hat_i = sign(q_i) max|q| hits_i / B has mean q_i, whether features fire independently or "
        "in strata.",
        source="Lee et al. 2026, section 5; own proof for strata",
        kind="identity",
        wrong="a divisor below max|q|; signs dropped; any number of hits counted as B",
        check=partial(_query, mean=_mean),
        control=_query_control,
    ),
    Claim(
        id="N11.covariance",
        title="Covariance of sampled scores",
        statement="Cov(s-hat_j, s-hat_k) = alpha^2 sum_i Var(q-hat_i) K_ji K_ki, alpha the softmax scale, with "
        "Var q-hat_i = |q_i|(max|q| - |q_i|)/B independently and (max|q|/B)^2 f(1 - f), "
        "f = frac(B |q_i|/max|q|), in strata.",
        source="own proof",
        kind="identity",
        wrong="the variance of independent firing for strata",
        check=partial(_covariance, variance=query_variance),
        control=partial(_covariance, variance=_iid_for_both),
    ),
    Claim(
        id="N11.rate",
        title="Rate of that variance",
        statement="Averaged over |q_i| uniform on [0, max|q|], Var q-hat_i is max|q|^2/(6B) independently and "
        "max|q|^2/(6B^2) in strata: twice the vectors leave 1/2 and 1/4 of it.",
        source="own proof",
        kind="identity",
        wrong="1/B for strata",
        check=partial(_rate, order=2),
        control=partial(_rate, order=1),
    ),
    Claim(
        id="N11.reads",
        title="Key features read",
        statement="Feature i is read with probability 1 - (1 - pi_i)^B independently and min(1, B pi_i) in strata.",
        source="own proof",
        kind="identity",
        wrong="the form of independent firing for strata",
        check=partial(_reads, inclusion=features_read),
        control=partial(_reads, inclusion=_iid_reads),
    ),
    Claim(
        id="N11.shared",
        title="One draw for a group",
        statement="With hits of m = mean_g |q_g|, the queries (m-hat/m) q_g have mean q_g and variance "
        "(q_gi/m_i)^2 Var m-hat_i, for every head.",
        source="Lee et al. 2026, C.2, for the mean",
        kind="identity",
        wrong="m-hat q_g, not divided by m",
        check=partial(_shared, estimate=shared_sampled_queries),
        control=partial(_shared, estimate=_not_over_mean),
    ),
)
