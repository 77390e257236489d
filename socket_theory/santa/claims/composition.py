"""N12: values sampled on sampled scores, by enumeration of both draws and as the estimators return them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from socket_theory.core.claim import Claim, Context, Measurement, combine
from socket_theory.santa.bernoulli import Bernoulli, BernoulliSanta
from socket_theory.santa.claims.problems import (
    Float,
    Problem,
    covariance,
    drawn_rows,
    largest_gap,
    mean_of_law,
    mildest,
    one_uniform,
)
from socket_theory.santa.claims.scores import QUERY, SETTINGS, outcomes
from socket_theory.santa.claims.softmax import softmax
from socket_theory.santa.law import systematic_covariance
from socket_theory.santa.query import firing_probabilities, sampled_query

Terms = Callable[[Float, Float], Float]
SAMPLES = 3


def _laws(query: Float, keys: Float, method: Bernoulli) -> tuple[Float, Float]:
    """softmax(q^K'/2) for every q^, [M, N], and the probability of each: 1/2 is the scale of four features."""
    hits, probability = outcomes(firing_probabilities(query), method.num_vectors, method.query_sampler)
    return softmax(sampled_query(query, hits, method.num_vectors) @ keys.T / 2), probability


def _outputs(laws: Float, probability: Float, values: Float, method: BernoulliSanta) -> tuple[Float, Float]:
    """Every output of the two draws, [M, E], and the probability of each."""
    outputs, chances = [], []
    for law, chance in zip(laws, probability, strict=True):
        edges = Problem(law, values, method.num_samples).edges
        points, lengths = one_uniform(np.ceil(edges) - edges, 1)
        outputs.append(drawn_rows(method, law, points) @ values)
        chances.append(chance * lengths)
    return np.concatenate(outputs), np.concatenate(chances)


def _both(inner: Float, outer: Float) -> Float:
    return np.asarray(inner + outer)


def _of_the_values_alone(inner: Float, outer: Float) -> Float:
    return inner


def _composed(context: Context, terms: Terms) -> Measurement:
    rng, parts = context.generator(), []
    keys, values = rng.standard_normal((7, 4)), rng.standard_normal((7, 2))
    for vectors, sampler in SETTINGS:
        method = BernoulliSanta(SAMPLES, num_vectors=vectors, query_sampler=sampler)
        laws, probability = _laws(QUERY, keys, method.scoring)
        outputs, chances = _outputs(laws, probability, values, method)
        inner = np.stack([systematic_covariance(law, values, SAMPLES) for law in laws])
        closed = terms(np.tensordot(probability, inner, 1), covariance(probability, laws @ values))
        parts.append(largest_gap(covariance(chances, outputs), closed))
    return combine(*parts)


def _returned(context: Context, second_term: bool, biased: bool) -> tuple[Measurement, ...]:
    """Means of what both estimators return in one call with many sequences alike, and mean squares of the second.

    The first feature fires at random, so that at full effort it shows if it fires by the uniform that draws values.
    """
    query, keys = QUERY[::-1], np.array([[6.0, 1, 6, 0], [-6, 1, 0, 0], [0, 0, -3, 3]])
    values = np.array([[1.0], [-1.0], [3.0]])
    batch, level = context.samples(400), context.level(3)
    scores, both = Bernoulli(1), BernoulliSanta(8, num_vectors=1)
    laws, probability = _laws(query, keys, scores)
    exact, chances = _outputs(laws, probability, values, both)
    mean = probability @ laws @ values if biased else softmax(keys @ query / 2) @ values
    inner = sum(p * systematic_covariance(law, values, 8) for law, p in zip(laws, probability, strict=True))
    total = inner + second_term * covariance(probability, laws @ values)
    tokens, rows = (np.broadcast_to(array, (batch, 1, *array.shape)) for array in (keys, values))
    asked = np.broadcast_to(query, (batch, 1, 4))
    one, two = (m.attend(asked, m.prepare(tokens, rows), key=context.key).value[:, 0] for m in (scores, both))
    centre = chances @ exact
    return (
        mean_of_law(one, laws @ values, probability, mean, level),
        mean_of_law(two, exact, chances, mean, level),
        mean_of_law((two - centre) ** 2, (exact - centre) ** 2, chances, np.diag(total), level),
    )


def _returned_check(context: Context) -> Measurement:
    return combine(*_returned(context, second_term=True, biased=True))


def _returned_control(context: Context) -> Measurement:
    return mildest(*_returned(context, second_term=False, biased=False))


CLAIMS = (
    Claim(
        id="N12.composition",
        title="Sampled values on sampled scores",
        statement="The covariance of values sampled on sampled scores is E Cov(m-hat | q-hat) + "
        "Cov(softmax(q-hat K') V).",
        source="law of total covariance",
        kind="identity",
        wrong="the first term alone",
        check=partial(_composed, terms=_both),
        control=partial(_composed, terms=_of_the_values_alone),
    ),
    Claim(
        id="N12.returned",
        title="What the estimators return",
        statement="Outputs with sampled scores have the mean E softmax(q-hat K') V, whether values are sampled or not, "
        "and if they are, that covariance.",
        source="N2, N11.query and N12.composition",
        kind="mean",
        wrong="the mean of attention with exact scores; the variance of the values alone",
        check=_returned_check,
        control=_returned_control,
    ),
)
