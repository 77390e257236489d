"""N11: what `Bernoulli` returns for two heads of a group, against the law of its outputs by enumeration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from socket_theory.core.claim import Claim, Context, Measurement, combine
from socket_theory.santa.bernoulli import Bernoulli
from socket_theory.santa.claims.problems import Float, mean_of_law, mildest
from socket_theory.santa.claims.scores import outcomes
from socket_theory.santa.claims.softmax import softmax
from socket_theory.santa.query import firing_probabilities, group_magnitudes, sampled_query, shared_sampled_queries

Law = Callable[[Bernoulli], tuple[Float, Float]]
METHODS = (
    Bernoulli(1),
    Bernoulli(2),
    Bernoulli(3, "iid"),
    Bernoulli(2, shared_query=True),
    Bernoulli(3, "iid", shared_query=True),
)
# Chosen so that every variant differs by several standard errors at quick effort.
HEADS = np.array([[-1.7, -0.6, 0.7], [-4.4, -2.2, 0.4]])
KEYS, VALUES = np.array([[-1.0, -3, 0], [-3, 1, -3], [1, 0, 2]]), np.array([-2.0, 2, 2])


def _outputs(queries: Float) -> Float:
    """softmax(q K'/sqrt 3) v: [..., 3] -> [...]."""
    return np.asarray(softmax(queries @ KEYS.T / np.sqrt(3)) @ VALUES)


def _apart(method: Bernoulli) -> tuple[Float, Float]:
    """Outputs [M, 2] of two heads that draw for themselves, and the probability of each."""
    laws = []
    for query in HEADS:
        hits, probability = outcomes(firing_probabilities(query), method.num_vectors, method.query_sampler)
        laws.append((_outputs(sampled_query(query, hits, method.num_vectors)), probability))
    (first, likely), (second, probable) = laws
    pairs = np.stack(np.broadcast_arrays(first[:, None], second), axis=-1)
    return pairs.reshape(-1, 2), np.outer(likely, probable).ravel()


def _together(method: Bernoulli) -> tuple[Float, Float]:
    """Outputs [M, 2] of two heads that share a draw, and the probability of each."""
    law = firing_probabilities(group_magnitudes(HEADS))
    hits, probability = outcomes(law, method.num_vectors, method.query_sampler)
    return np.stack([_outputs(shared_sampled_queries(HEADS, row, method.num_vectors)) for row in hits]), probability


def _law(method: Bernoulli) -> tuple[Float, Float]:
    return _together(method) if method.shared_query else _apart(method)


def _of_the_other_sharing(method: Bernoulli) -> tuple[Float, Float]:
    return _apart(method) if method.shared_query else _together(method)


def _of_one_vector(method: Bernoulli) -> tuple[Float, Float]:
    return _law(replace(method, num_vectors=1))


def _of_exact_scores(method: Bernoulli) -> tuple[Float, Float]:
    return _outputs(HEADS)[None], np.ones(1)


def _moments(outputs: Float) -> Float:
    """y_1, y_2, their squares and their product, of outputs [M, 2]: [M, 5]."""
    return np.concatenate([outputs, outputs**2, outputs.prod(axis=-1, keepdims=True)], axis=-1)


def _returned(context: Context, method: Bernoulli, law: Law) -> Measurement:
    """Averages over one call with many sequences alike."""
    batch = context.samples(400)
    keys, values = (np.broadcast_to(array, (batch, 1, *array.shape)) for array in (KEYS, VALUES[:, None]))
    cache, asked = method.prepare(keys, values), np.broadcast_to(HEADS, (batch, *HEADS.shape))
    drawn = method.attend(asked, cache, key=context.key).value[..., 0]
    outputs, chances = _law(method)
    other, probability = law(method)
    return mean_of_law(_moments(drawn), _moments(outputs), chances, probability @ _moments(other), context.level())


def _check(context: Context) -> Measurement:
    tags = map(str, METHODS)
    return combine(*(_returned(part, m, _law) for part, m in zip(context.split(*tags), METHODS, strict=True)))


def _control(context: Context) -> Measurement:
    wrong = [(m, law) for law in (_of_exact_scores, _of_the_other_sharing) for m in METHODS]
    wrong += [(m, _of_one_vector) for m in METHODS if m.num_vectors > 1]
    return mildest(*(_returned(context, *variant) for variant in wrong))


CLAIMS = (
    Claim(
        id="N11.returned",
        title="What the estimator returns",
        statement="Outputs of two heads have the means, the mean squares and the mean product of softmax(q-hat K') V, "
        "with one vector and several, features firing independently or in strata, heads drawing apart or together.",
        source="N11.query and N11.shared",
        kind="mean",
        wrong="attention with exact scores; a draw a group for a draw a head and conversely; one vector for several",
        check=_check,
        control=_control,
    ),
)
