"""S13: what top-k costs exact softmax attention, the regime SOCKET is deployed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from socket_theory.bounds.top_k import top_k_error_bound
from socket_theory.core.attention import softmax_attention
from socket_theory.core.baselines import OracleTopK, RandomTokens, Window
from socket_theory.core.claim import Claim, Context, Measurement, combine, inequality, worst
from socket_theory.core.hashing import Planes
from socket_theory.core.selection import Budget
from socket_theory.socket_lsh.estimator import Socket

Float = NDArray[np.float64]
ROUNDING = 1e-12


def _truncations(context: Context, renormalised: bool) -> Iterator[tuple[Float, Float, Float, float, Float]]:
    """Four selectors: exact output y, output y_S of the kept tokens, that of the others, kept mass m, values."""
    rng = context.generator()
    query, keys, values = (
        rng.standard_normal((4, 16)),
        rng.standard_normal((1, 120, 16)),
        rng.standard_normal((1, 120, 5)),
    )
    budget, draw = Budget(tokens=20, sink=2, window=4), context.key.fold_in("tokens")
    planes = Planes(rng.standard_normal((16, 8, 16)))
    for method, given, key in (
        (OracleTopK(), None, None),
        (Window(), None, None),
        (RandomTokens(), None, draw),
        (Socket(8, 16), planes, None),
    ):
        estimate = method.attend(query, method.prepare(keys, values, sample=given), budget=budget, key=key)
        for head, one in enumerate(query):
            rest = np.setdiff1d(np.arange(120), estimate.indices[head])
            whole, others = (softmax_attention(one, keys[0, at], values[0, at]) for at in (slice(None), rest))
            mass = float(np.exp(estimate.lse[head] - whole.lse))
            kept = estimate.value[head] if renormalised else mass * estimate.value[head]
            yield whole.value, kept, others.value, mass, values[0]


def _truncation_identity(context: Context, renormalised: bool) -> Measurement:
    errors = [
        np.max(np.abs((y - kept) - (1 - mass) * (others - kept)))
        for y, kept, others, mass, _ in _truncations(context, renormalised)
    ]
    return worst(errors, ROUNDING)


def _diameter(values: Float) -> float:
    return float(np.max(np.linalg.norm(values[:, None] - values, axis=-1)))


def _radius(values: Float) -> float:
    return float(np.max(np.linalg.norm(values, axis=-1)))


def _truncation_bound(context: Context, spread: Callable[[Float], float]) -> Measurement:
    """(1 - m) times the spread of the values, at random and where the kept token has value 1 and the others -1."""
    parts = [
        inequality(np.linalg.norm(y - kept), top_k_error_bound(mass, spread(values)))
        for y, kept, _, mass, values in _truncations(context, True)
    ]
    keys, values = np.zeros((5, 2)), np.array([[1.0], [-1.0], [-1.0], [-1.0], [-1.0]])
    error = np.linalg.norm(softmax_attention(np.ones(2), keys, values).value - values[0])
    extremal = worst(error, top_k_error_bound(0.2, spread(values)) + ROUNDING)
    diameter = worst(spread(values), 2 * _radius(values))
    return combine(max(parts, key=lambda part: part.observed / part.allowed), extremal, diameter)


CLAIMS = (
    Claim(
        id="S13.identity",
        title="Dropping tokens: identity",
        statement="For any kept set S of true softmax mass m, y - y_S = (1 - m)(y_rest - y_S), whatever selected it.",
        source="own proof; total expectation",
        kind="identity",
        wrong="the kept weights not renormalised",
        check=partial(_truncation_identity, renormalised=True),
        control=partial(_truncation_identity, renormalised=False),
    ),
    Claim(
        id="S13.bound",
        title="Dropping tokens: bound",
        statement="|y - y_S| <= (1 - m) diam V <= 2 (1 - m) max|v|.",
        source="S13.identity; both means lie in the convex hull of the values",
        kind="inequality",
        wrong="(1 - m) max|v|, the factor 2 forgotten, on one kept value 1 among values -1",
        check=partial(_truncation_bound, spread=_diameter),
        control=partial(_truncation_bound, spread=_radius),
    ),
)
