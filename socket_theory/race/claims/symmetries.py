"""R9: what RACE attention does not change under, and what of it causal attention keeps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.claim import Claim, Context, Measurement, combine, worst
from socket_theory.race.attention import race_attention
from socket_theory.race.claims.sequences import Sequence, sequences, square
from socket_theory.race.features import collision_weights, soft_buckets

Float = NDArray[np.float64]
ROUNDING, RELEASED_EPSILON = 1e-12, 1e-6


def _output(sequence: Sequence, causal: bool) -> Float:
    given = sequence.query, sequence.keys, sequence.values, sequence.planes, sequence.beta
    return np.asarray(race_attention(*given, causal, chunk=5).value)


def _even(context: Context, both: bool) -> Measurement:
    """Weights with -beta on both sides, or on the keys' alone."""
    errors = []
    for one in sequences(context):
        right = collision_weights(one.query[:2], one.keys, one.planes, one.beta)
        asked = soft_buckets(one.query[:2], one.planes.weights, -one.beta if both else one.beta)
        held = soft_buckets(one.keys, one.planes.weights, -one.beta)
        found = np.einsum("htlr,hnlr->htn", asked, held) / one.planes.num_tables
        errors.append(np.max(np.abs(found - right)))
    return worst(errors, ROUNDING)


def _permuted(context: Context, causal: bool) -> Measurement:
    """The output of tokens in another order against the output in that order."""
    errors = []
    for index, one in enumerate(sequences(context)):
        same = square(one)
        order = context.key.fold_in("order", index).generator().permutation(same.keys.shape[1])
        rows = {name: getattr(same, name)[:, order] for name in ("query", "keys", "values")}
        moved = _output(replace(same, **rows), causal) - _output(same, causal)[:, order]
        errors.append(np.max(np.abs(moved)) / one.largest)
    return worst(errors, ROUNDING)


def _means(context: Context, added: float) -> Measurement:
    """How far components leave the range of the values seen, and constant values do not come back; relative.

    `added` goes to the normaliser mean_l <phi_l(q), sum_j phi_l(k_j)>.
    """
    errors = []
    for one in sequences(context):
        groups, first = len(one.query) // len(one.keys), one.keys.shape[1] - one.query.shape[1]
        state = race_attention(one.query, one.keys, one.values, one.planes, one.beta, True)
        shrunk = (1 / (1 + added * np.exp(-state.lse)))[..., None]
        values = np.repeat(one.values, groups, axis=0)
        highest, lowest = (limit.accumulate(values, axis=1)[:, first:] for limit in (np.maximum, np.minimum))
        outside = np.maximum(state.value * shrunk - highest, lowest - state.value * shrunk)
        constant = _output(replace(one, values=np.ones_like(one.values)), True) * shrunk
        errors += [np.max(outside) / one.largest, np.max(np.abs(constant - 1))]
    return worst(errors, ROUNDING)


def _scaled(context: Context) -> Measurement:
    errors = []
    for one in sequences(context):
        for factor in (-3.7, 1e20, 1e-20):
            off = _output(replace(one, values=factor * one.values), True) / factor - _output(one, True)
            errors.append(np.max(np.abs(off)) / one.largest)
    return worst(errors, ROUNDING)


def _means_check(context: Context) -> Measurement:
    return combine(_means(context, 0.0), _scaled(context))


def _later_tokens(context: Context, causal: bool) -> Measurement:
    """Components of rows up to i that other keys and values behind i change by a bit."""
    changed = 0
    for index, one in enumerate(sequences(context)):
        rng, first = context.key.fold_in("later", index).generator(), one.keys.shape[1] - one.query.shape[1]
        right = _output(one, causal)
        for i in range(one.query.shape[1] - 1):
            keys, values = one.keys.copy(), one.values.copy()
            for rows in (keys, values):
                rows[:, first + i + 1 :] = 100 * rng.standard_normal(rows[:, first + i + 1 :].shape)
            found = _output(replace(one, keys=keys, values=values), causal)
            changed += int(np.count_nonzero(found[:, : i + 1] != right[:, : i + 1]))
    return Measurement(changed, 0)


CLAIMS = (
    Claim(
        id="R9.even",
        title="Even in beta",
        statement="-beta gives the same weights as beta: it names each bucket by its opposite corner, for queries and "
        "keys alike.",
        source="R1; tanh is odd and enters once from each side",
        kind="identity",
        wrong="-beta for the keys alone",
        check=partial(_even, both=True),
        control=partial(_even, both=False),
    ),
    Claim(
        id="R9.order",
        title="No order without a mask",
        statement="Attention over all tokens is equivariant: tokens in another order give the same outputs in that "
        "order. Causal attention is not.",
        source="own proof; a sum has no order",
        kind="identity",
        wrong="the causal form",
        check=partial(_permuted, causal=False),
        control=partial(_permuted, causal=True),
    ),
    Claim(
        id="R9.mean",
        title="Rows are means of values",
        statement="Each row is a convex combination of the values that it sees: its components stay in their range, "
        "a constant value comes back, and a factor of all values passes through.",
        source="own proof; the weights are positive and divided by their sum",
        kind="identity",
        wrong="1e-6 added to the normaliser, as the released code adds it to each bucket's",
        check=_means_check,
        control=partial(_means, added=RELEASED_EPSILON),
    ),
    Claim(
        id="R9.causal",
        title="Later tokens change no bit",
        statement="Of a given number of tokens, causal rows up to i are the same numbers, bit for bit, whatever the "
        "keys and values behind i are.",
        source="own proof; sums of zeros",
        kind="identity",
        wrong="attention over all tokens",
        check=partial(_later_tokens, causal=True),
        control=partial(_later_tokens, causal=False),
    ),
)
