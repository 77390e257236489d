"""N3, N4, N5: the covariance of iid, stratified and systematic averages, and the orders that hold between them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.linalg import eigh

from socket_theory.core.claim import Claim, Context, Measurement, combine, inequality
from socket_theory.santa.bounds import koksma_radius
from socket_theory.santa.claims.problems import (
    ROUNDING,
    Float,
    Problem,
    alternating,
    covariance,
    drawn_rows,
    independent_uniforms,
    largest_gap,
    mildest,
    problems,
    softmax_weights,
    tiny_problems,
)
from socket_theory.santa.estimator import Santa
from socket_theory.santa.law import (
    iid_covariance,
    stratified_covariance,
    systematic_covariance,
    systematic_law,
    value_covariance,
)
from socket_theory.santa.samplers import iid_counts

Rows = Callable[[Problem, Float], Float]
Covariance = Callable[[Float, Float, int], Float]


def _iid_rows(problem: Problem, points: Float) -> Float:
    return drawn_rows(Santa(problem.samples, "iid"), problem.weights, points)


def _every_draw_twice(problem: Problem, points: Float) -> Float:
    return np.asarray(2 * iid_counts(problem.weights, points[:, ::2]) / problem.samples)


def _stratified_rows(problem: Problem, points: Float) -> Float:
    return drawn_rows(Santa(problem.samples, "stratified"), problem.weights, points)


def _enumerated(problem: Problem, rows: Rows, places: Float, closed: Covariance) -> Measurement:
    """Largest entry of the difference from the covariance over all outcomes of S uniforms, each cut at `places`."""
    points, probability = independent_uniforms([places] * problem.samples)
    exact = covariance(probability, rows(problem, points) @ problem.values)
    return largest_gap(exact, closed(problem.weights, problem.values, problem.samples))


def _iid(context: Context, rows: Rows) -> Measurement:
    drawn = tiny_problems(context.generator())
    return combine(*(_enumerated(p, rows, p.edges / p.samples, iid_covariance) for p in drawn))


def _stratified(context: Context, closed: Covariance) -> Measurement:
    drawn = tiny_problems(context.generator())
    return combine(*(_enumerated(p, _stratified_rows, p.edges % 1, closed) for p in drawn))


def _ratio(problem: Problem, left: Covariance, right: Covariance) -> float:
    """The largest ratio of the variances in any direction."""
    smaller, larger = (form(problem.weights, problem.values, problem.samples) for form in (left, right))
    return float(eigh(smaller, larger, eigvals_only=True)[-1])


def _random(context: Context) -> list[Problem]:
    """All problems whose values vary at all."""
    return [problem for problem in problems(context) if np.count_nonzero(problem.weights) > 2]


def _order(context: Context, left: Covariance, right: Covariance) -> Measurement:
    """Random problems, whose tightness is printed, and the alternating one, which attains the bound."""
    ratios = [_ratio(problem, left, right) for problem in _random(context)]
    extremal = _ratio(alternating(8), left, right)
    return combine(inequality(ratios, 1 + ROUNDING), inequality(extremal, 1 + ROUNDING))


def _one_draw(weights: Float, values: Float, samples: int) -> Float:
    return value_covariance(weights, values)


def _systematic_below_iid(context: Context) -> Measurement:
    """Both the alternating problem and a search over random laws, for all values of 8 tokens at once, refute it."""
    rng = context.generator()
    laws = [Problem(softmax_weights(rng, 8, 1.0), np.eye(8)[:, 1:], 4) for _ in range(20)]
    searched = max(_ratio(problem, systematic_covariance, iid_covariance) for problem in laws)
    extremal = _ratio(alternating(8), systematic_covariance, iid_covariance)
    return mildest(Measurement(extremal, 1 + ROUNDING), Measurement(searched, 1 + ROUNDING))


def _no_order(context: Context, form: Covariance) -> Measurement:
    """Exact variances: alternating values 1 at S = 1, 5, 32, sorted ones 0, and 48 tokens at four S in a row."""
    weights, values = np.ones(48), np.tile([[1.0], [-1.0]], (24, 1))
    seen, expected = [form(weights, values, s)[0, 0] for s in (12, 16, 20, 24)], [1, 0, 0.04, 1]
    for samples in (1, 5, 32):
        worst_case = alternating(samples)
        seen.append(form(worst_case.weights, worst_case.values, samples)[0, 0])
        expected.append(1)
    ordered = alternating(32)
    seen.append(form(ordered.weights, np.sort(ordered.values, axis=0), 32)[0, 0])
    return largest_gap(seen, [*expected, 0])


def _koksma(context: Context, factor: float) -> Measurement:
    """The largest |m^ - mu| over all offsets; the second instance has a rare first row, which is off by nearly 1."""
    rare = Problem(np.array([1e-3, 1 - 1e-3]), np.array([[0.0], [1.0]]), 1)
    parts = []
    for problem in (*_random(context), rare):
        outputs = systematic_law(problem.weights, problem.samples).counts @ problem.values / problem.samples
        errors = np.linalg.norm(outputs - problem.law @ problem.values, axis=-1)
        parts.append(inequality(errors, factor * koksma_radius(problem.values, problem.samples)))
    return combine(*parts)


CLAIMS = (
    Claim(
        id="N3",
        title="Covariance of iid draws",
        statement="The mean of v_J over S iid draws has covariance Sigma / S, with "
        "Sigma = sum_j p_j (v_j - mu)(v_j - mu)^T.",
        source="Lee et al. 2026, A.3",
        kind="identity",
        wrong="S/2 draws, each used twice: unbiased, and twice the covariance",
        check=partial(_iid, rows=_iid_rows),
        control=partial(_iid, rows=_every_draw_twice),
    ),
    Claim(
        id="N4.closed-form",
        title="Covariance of stratified draws",
        statement="One draw in each of S equal strata of probability gives covariance S^-2 sum_m Sigma^(m), Sigma^(m) "
        "the covariance of v_J inside stratum m.",
        source="Lee et al. 2026, A.6",
        kind="identity",
        wrong="one offset for all strata, which is systematic sampling",
        check=partial(_stratified, closed=stratified_covariance),
        control=partial(_stratified, closed=systematic_covariance),
    ),
    Claim(
        id="N4.order",
        title="Strata never add variance",
        statement="In every direction the variance of stratified sampling is at most that of iid sampling.",
        source="Lee et al. 2026, A.6; own proof",
        kind="inequality",
        wrong="one offset for all strata, on alternating values",
        check=partial(_order, left=stratified_covariance, right=iid_covariance),
        control=partial(_order, left=systematic_covariance, right=iid_covariance),
    ),
    Claim(
        id="N5.one-draw",
        title="Systematic variance against one draw",
        statement="In every direction the variance of systematic sampling is at most that of a single draw, Sigma; a "
        "factor S above iid sampling, and it is attained.",
        source="own proof",
        kind="inequality",
        wrong="systematic sampling called no worse than iid; alternating values and a search both refute it",
        check=partial(_order, left=systematic_covariance, right=_one_draw),
        control=_systematic_below_iid,
    ),
    Claim(
        id="N5.no-order",
        title="Systematic variance has no order",
        statement="On 2S tokens of equal mass with alternating values +-1 systematic sampling has variance 1, S times "
        "that of iid and stratified sampling, and 0 when they are sorted and S is even; it can grow with S.",
        source="own example",
        kind="identity",
        wrong="the variance of stratified sampling in its place",
        check=partial(_no_order, form=systematic_covariance),
        control=partial(_no_order, form=stratified_covariance),
    ),
    Claim(
        id="N5.koksma",
        title="Koksma radius",
        statement="Whatever its offset, a systematic average is within sum_j |v_(j+1) - v_j| / S of its mean.",
        source="own proof, after Koksma 1942",
        kind="inequality",
        wrong="half the radius",
        check=partial(_koksma, factor=1.0),
        control=partial(_koksma, factor=0.5),
    ),
)
