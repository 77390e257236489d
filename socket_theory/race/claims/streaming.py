"""R7: sums that grow token by token, chunk by chunk or all at once, and the masked dense form, are one number."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.claim import Claim, Context, Measurement, combine, worst
from socket_theory.race.attention import race_attention
from socket_theory.race.claims.sequences import Sequence, sequences
from socket_theory.race.features import soft_buckets
from socket_theory.race.sums import BucketSums

Float = NDArray[np.float64]
EXACT = 1e-10


def _streamed(sequence: Sequence, chunk: int, inclusive: bool) -> Float:
    """O [Hq, T, E] of causal queries by running sums; not inclusive, a chunk hands on all its tokens but the last."""
    groups, before = len(sequence.query) // len(sequence.keys), sequence.keys.shape[1] - sequence.query.shape[1]
    keys, values = (np.repeat(rows, groups, axis=0) for rows in (sequence.keys, sequence.values))
    held, asked = (soft_buckets(rows, sequence.planes.weights, sequence.beta) for rows in (keys, sequence.query))
    sums, outputs = BucketSums.of(held[:, :before], values[:, :before]), []
    for start in range(0, asked.shape[1], chunk):
        mine, own = slice(start, start + chunk), slice(before + start, before + start + chunk)
        weighted, total = sums.read_causally(asked[:, mine], held[:, own], values[:, own])
        outputs.append(weighted / total[..., None])
        handed = own if inclusive else slice(own.start, own.stop - 1)
        sums = sums.plus(BucketSums.of(held[:, handed], values[:, handed]))
    return np.concatenate(outputs, axis=1)


def _chunks(context: Context, inclusive: bool) -> Measurement:
    errors = []
    for sequence in sequences(context):
        dense = sequence.dense(causal=True)
        for chunk in range(1 if inclusive else 2, sequence.keys.shape[1] + 2):
            errors.append(np.max(np.abs(_streamed(sequence, chunk, inclusive) - dense)) / sequence.largest)
    return worst(errors, EXACT)


def _functions(context: Context) -> Measurement:
    """`race_attention` at every chunk size, and a call for every single query."""
    errors = []
    for one in sequences(context):
        given, first = (one.planes, one.beta), one.keys.shape[1] - one.query.shape[1]
        for causal in (False, True):
            dense = one.dense(causal)
            for chunk in range(1, one.keys.shape[1] + 2):
                whole = race_attention(one.query, one.keys, one.values, *given, causal, chunk=chunk).value
                errors.append(np.max(np.abs(whole - dense)) / one.largest)
            for t in range(one.query.shape[1]):
                seen = slice(first + t + 1 if causal else None)
                single = race_attention(one.query[:, t : t + 1], one.keys[:, seen], one.values[:, seen], *given)
                errors.append(np.max(np.abs(single.value[:, 0] - dense[:, t])) / one.largest)
    return worst(errors, EXACT)


def _check(context: Context) -> Measurement:
    return combine(_chunks(context, inclusive=True), _functions(context))


CLAIMS = (
    Claim(
        id="R7",
        title="Streaming is dense attention",
        statement="Sums A = sum phi(k) and B = sum phi(k) v' that grow chunk by chunk, with attention inside a chunk, "
        "give the masked dense form for every chunk size, 1 being token by token; so does race_attention, causal or "
        "not, at once or by a call per query over the keys that it sees.",
        source="own proof; a sum over a prefix splits at every border",
        kind="identity",
        wrong="sums that lack the last token of a chunk, handed to the next chunk",
        check=_check,
        control=partial(_chunks, inclusive=False),
    ),
)
