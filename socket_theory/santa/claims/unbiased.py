"""N1, N2: how often systematic sampling draws a row, and which samplers draw it S p times on average."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np

from socket_theory.core.claim import Claim, Context, Measurement, combine
from socket_theory.santa.claims.problems import (
    ROUNDING,
    Float,
    Problem,
    drawn_rows,
    largest_gap,
    mildest,
    one_uniform,
    problems,
    small_problem,
)
from socket_theory.santa.estimator import Santa
from socket_theory.santa.law import CellLaw, systematic_law
from socket_theory.santa.samplers import systematic_counts

Law = Callable[[Float, int], CellLaw]
Mean = Callable[[Problem], Float]


def _counts(context: Context, law: Law) -> Measurement:
    """|E c - S p|; no count may be off by 1 or more, and no sum of counts by anything."""
    parts = []
    for problem in problems(context):
        cell, expected = law(problem.weights, problem.samples), problem.samples * problem.law
        wrong = int(np.count_nonzero(cell.counts.sum(axis=1) != problem.samples))
        wrong += int(np.count_nonzero(np.abs(cell.counts - expected) >= 1 + ROUNDING))
        parts += [largest_gap(cell.mean(), expected), Measurement(wrong, 0)]
    return combine(*parts)


def _constant_cells(context: Context) -> Measurement:
    """Rows that the estimator draws at 20 random offsets, with tiles or without, otherwise than their cells say."""
    wrong, offsets = 0, context.key.fold_in("offsets").generator().random(20)
    for problem in problems(context):
        cell = systematic_law(problem.weights, problem.samples)
        inside = np.searchsorted(np.cumsum(cell.probability), offsets, side="right")
        for method in (Santa(problem.samples, "systematic"), Santa(problem.samples, "phase_carried", 7)):
            drawn = drawn_rows(method, problem.weights, offsets[:, None])
            wrong += int(np.count_nonzero(cell.counts[inside] / problem.samples != drawn))
    return Measurement(wrong, 0)


def _counts_check(context: Context) -> Measurement:
    return combine(_counts(context, systematic_law), _constant_cells(context))


def _fixed_offset(weights: Float, samples: int) -> CellLaw:
    return CellLaw(systematic_counts(weights, samples, np.array([0.5])), np.ones(1))


def _rounded_counts(weights: Float, samples: int) -> CellLaw:
    return CellLaw(np.rint(samples * weights / weights.sum()).astype(np.int64)[None], np.ones(1))


def _counts_control(context: Context) -> Measurement:
    return mildest(_counts(context, _fixed_offset), _counts(context, _rounded_counts))


def _iid_mean(problem: Problem) -> Float:
    points, probability = one_uniform(problem.edges / problem.samples, problem.samples)
    rows = drawn_rows(Santa(problem.samples, "iid"), problem.weights, points)
    return np.asarray(problem.samples * (probability @ rows))


def _stratified_mean(problem: Problem) -> Float:
    points, probability = one_uniform(problem.edges % 1, problem.samples)
    rows = drawn_rows(Santa(problem.samples, "stratified"), problem.weights, points)
    return np.asarray(problem.samples * (probability @ rows))


def _systematic_mean(problem: Problem) -> Float:
    points, probability = one_uniform(np.ceil(problem.edges) - problem.edges, 1)
    rows = drawn_rows(Santa(problem.samples, "systematic"), problem.weights, points)
    return np.asarray(problem.samples * (probability @ rows))


def _without_replacement(problem: Problem) -> Float:
    mean = np.zeros(len(problem.law))
    for order in permutations(range(len(mean)), problem.samples):
        left = 1 - np.concatenate([[0.0], np.cumsum(problem.law[list(order)])[:-1]])
        mean[list(order)] += np.prod(problem.law[list(order)] / left)
    return mean


def _largest_renormalised(problem: Problem) -> Float:
    kept = np.where(problem.law >= np.sort(problem.law)[-problem.samples], problem.law, 0)
    return np.asarray(problem.samples * kept / kept.sum())


def _strata_of_tokens(problem: Problem) -> Float:
    groups = np.array_split(problem.law, problem.samples)
    return np.concatenate([group / group.sum() for group in groups])


def _unbiased(problem: Problem, mean: Mean) -> Measurement:
    return largest_gap(mean(problem), problem.samples * problem.law)


def _unbiased_check(context: Context) -> Measurement:
    samplers = (_iid_mean, _stratified_mean, _systematic_mean)
    return combine(*(_unbiased(problem, mean) for problem in problems(context) for mean in samplers))


def _unbiased_control(context: Context) -> Measurement:
    problem = small_problem(context.generator())
    wrong = (_without_replacement, _largest_renormalised, _strata_of_tokens)
    return mildest(*(_unbiased(problem, mean) for mean in wrong))


CLAIMS = (
    Claim(
        id="N1",
        title="Systematic counts",
        statement="c_j = floor(a + S F_j) - floor(a + S F_(j-1)) with one uniform offset a adds up to S, differs from "
        "S p_j by less than 1 and has mean S p_j.",
        source="own proof; Lee et al. 2026, A.4, for the mean",
        kind="identity",
        wrong="the offset 1/2 in place of a random one; S p rounded",
        check=_counts_check,
        control=_counts_control,
    ),
    Claim(
        id="N2",
        title="No bias",
        statement="Counts of S iid draws, of one draw in each of S equal strata of probability, and systematic counts "
        "have mean S p, so that sum_j c_j v_j / S is unbiased for the attention output.",
        source="Lee et al. 2026, A.2 and A.4; own proof",
        kind="identity",
        wrong="draws without replacement averaged with 1/S; the S largest renormalised; strata of equal token counts",
        check=_unbiased_check,
        control=_unbiased_control,
    ),
)
