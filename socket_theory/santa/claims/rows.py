"""N6, N14: how many rows are read, and what that is in bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from socket_theory.core.claim import Claim, Context, Measurement, combine, inequality, worst
from socket_theory.core.thresholds import bennett_radius
from socket_theory.santa.claims.problems import (
    ROUNDING,
    Float,
    Problem,
    alternating,
    drawn_rows,
    independent_uniforms,
    largest_gap,
    mildest,
    problems,
    small_problem,
    tiny_problems,
)
from socket_theory.santa.cost import DecodeShape, group_reads, iid_inclusion, stratified_inclusion, systematic_inclusion
from socket_theory.santa.estimator import Santa, ValueSampler
from socket_theory.santa.law import systematic_law

Inclusion = Callable[[Float, int], Float]
HEADS, HEAD_DIM, KV_LEN, SAMPLES = 3, 4, 36, 12


def _enumerated(problem: Problem, sampler: ValueSampler, places: Float, form: Inclusion) -> Measurement:
    """The probability that a row is drawn, over all outcomes of S uniforms, each cut at `places`."""
    points, probability = independent_uniforms([places] * problem.samples)
    read = drawn_rows(Santa(problem.samples, sampler), problem.weights, points) > 0
    return largest_gap(probability @ read, form(problem.weights, problem.samples))


def _inclusion(context: Context, systematic: Inclusion) -> Measurement:
    """By enumeration of uniforms or of cells."""
    parts = []
    for tiny in tiny_problems(context.generator()):
        parts.append(_enumerated(tiny, "iid", tiny.edges / tiny.samples, iid_inclusion))
        parts.append(_enumerated(tiny, "stratified", tiny.edges % 1, stratified_inclusion))
    for problem in problems(context):
        law = systematic_law(problem.weights, problem.samples)
        parts.append(largest_gap(law.probability @ (law.counts > 0), systematic(problem.weights, problem.samples)))
    return combine(*parts)


def _every_draw_another_row(weights: Float, samples: int) -> Float:
    return np.asarray(samples * weights / weights.sum())


def _inclusion_control(context: Context) -> Measurement:
    return mildest(_inclusion(context, iid_inclusion), _inclusion(context, _every_draw_another_row))


def _distinct_rows(problem: Problem) -> tuple[float, float, float, float]:
    forms = (iid_inclusion, stratified_inclusion, systematic_inclusion)
    iid, strata, systematic = (float(form(problem.weights, problem.samples).sum()) for form in forms)
    return iid, strata, systematic, float(min(problem.samples, int(np.count_nonzero(problem.weights))))


def _row_order(context: Context, reverse: bool) -> Measurement:
    """Each number of rows against the next larger one; at S = 1 all are equal."""
    one = Problem(small_problem(context.generator()).weights, np.zeros((5, 1)), 1)
    parts = []
    for problem in (*problems(context), alternating(8), one):
        rows = np.array(_distinct_rows(problem))
        left, right = (rows[1:], rows[:-1]) if reverse else (rows[:-1], rows[1:])
        parts.append(inequality(left, right * (1 + ROUNDING)))
    return combine(*parts)


def _group(context: Context) -> tuple[Float, Float, Float, Float]:
    """Query heads that share keys, with the keys, the values and the laws p."""
    rng = context.generator()
    keys, values = rng.standard_normal((2, KV_LEN, HEAD_DIM))
    query = 2 * rng.standard_normal((HEADS, HEAD_DIM))
    weights = np.exp(query @ keys.T / np.sqrt(HEAD_DIM))
    return query, keys, values, weights / weights.sum(axis=1, keepdims=True)


def _union(laws: Float) -> tuple[Float, Float]:
    """The exact law of the number of rows that independent heads read: values [M], probabilities [M]."""
    read, probability = np.zeros((1, laws.shape[1]), dtype=bool), np.ones(1)
    for law in laws:
        head = systematic_law(law, SAMPLES)
        read = (read[:, None] | (head.counts > 0)).reshape(-1, laws.shape[1])
        probability = np.outer(probability, head.probability).ravel()
    return read.sum(axis=1).astype(float), probability


def _inclusion_by_head(laws: Float) -> Float:
    return np.stack([systematic_inclusion(law, SAMPLES) for law in laws])


def _model_rows(laws: Float) -> float:
    return group_reads(_inclusion_by_head(laws))


def _no_row_shared(laws: Float) -> float:
    return float(_inclusion_by_head(laws).sum())


def _all_draws(laws: Float) -> float:
    return float(len(laws) * SAMPLES)


def _bytes(context: Context, rows: Callable[[Float], float], key_share: float) -> Measurement:
    """What the estimator counted in one call with many sequences alike, on average, against the model."""
    query, keys, values, laws = _group(context)
    batch, method, shape = context.samples(250), Santa(SAMPLES), DecodeShape(KV_LEN, HEADS, 1, HEAD_DIM, 8)
    cache = method.prepare(*(np.broadcast_to(rows_, (batch, 1, KV_LEN, HEAD_DIM)) for rows_ in (keys, values)))
    counted = method.attend(np.broadcast_to(query, (batch, HEADS, HEAD_DIM)), cache, key=context.key).stats.bytes
    union, probability = _union(laws)
    mean = probability @ union
    radius = bennett_radius(probability @ (union - mean) ** 2, np.abs(union - mean).max(), batch, context.level())
    model = shape.sampled(rows(laws), key_share=key_share)
    return worst(abs(counted.mean() - model), shape.row_bytes * radius)


def _union_rows(context: Context, rows: Callable[[Float], float]) -> Measurement:
    laws = _group(context)[-1]
    union, probability = _union(laws)
    return largest_gap(probability @ union, rows(laws))


def _bytes_control(context: Context) -> Measurement:
    return mildest(_bytes(context, _all_draws, 1.0), _bytes(context, _model_rows, 0.0))


CLAIMS = (
    Claim(
        id="N6.rows",
        title="Distinct rows",
        statement="A row is read with probability 1 - (1 - p_j)^S by iid draws, 1 - prod_m (1 - o_jm) by stratified "
        "ones, o_jm the overlap of token and stratum, and min(1, S p_j) by systematic ones.",
        source="own proof",
        kind="identity",
        wrong="the iid formula for systematic draws; S rows charged",
        check=partial(_inclusion, systematic=systematic_inclusion),
        control=_inclusion_control,
    ),
    Claim(
        id="N6.order",
        title="Order of distinct rows",
        statement="Expected distinct rows never fall from iid to stratified to systematic sampling, and never exceed S "
        "or the number of rows.",
        source="own proof",
        kind="inequality",
        wrong="the order reversed",
        check=partial(_row_order, reverse=False),
        control=partial(_row_order, reverse=True),
    ),
    Claim(
        id="N14.union",
        title="Rows of a group",
        statement="Heads of a group that draw independently read sum_j 1 - prod_g (1 - pi_gj) rows in expectation, "
        "pi_gj the probability that head g reads row j.",
        source="own proof",
        kind="identity",
        wrong="every head charged for its own rows",
        check=partial(_union_rows, rows=_model_rows),
        control=partial(_union_rows, rows=_no_row_shared),
    ),
    Claim(
        id="N14.bytes",
        title="Bytes of a step",
        statement="A step reads all keys, and of the values the distinct rows of each group: the bytes that the "
        "estimator counts have the mean of the model.",
        source="own model",
        kind="mean",
        wrong="G S rows whatever the overlap; keys for nothing",
        check=partial(_bytes, rows=_model_rows, key_share=1.0),
        control=_bytes_control,
    ),
)
