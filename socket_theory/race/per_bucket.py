"""The form that RACE's authors released, which normalises bucket by bucket: another estimator than the paper's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.hashing import Planes
from socket_theory.race.features import require_beta, require_features, soft_buckets
from socket_theory.race.passes import cleared, grouped, sums_of_tokens
from socket_theory.race.sequences import checked_sequences, require_planes
from socket_theory.race.sums import BucketSums

RELEASED_EPSILON = 1e-6
"""What the released code adds to the mass of a bucket."""
_CHUNK = 64


def race_per_bucket_attention(
    query: NDArray[Any],
    keys: NDArray[Any],
    values: NDArray[Any],
    planes: Planes,
    beta: float,
    causal: bool = False,
    *,
    kv_start: Any = None,
    kv_len: Any = None,
) -> NDArray[np.float64]:
    """O_i = (1/L) sum_lr phi_l(q_i)_r B_lr / (A_lr + 1e-6): a query averages the mean values of buckets.

    Each bucket counts alike, however many keys are in it, so `race_attention`, the paper's form, is not its limit for
    many tables. With P = 3, L = 4 and 50 Gaussian tokens the two are nearly the same at beta = .125 and differ by about
    a third of the output at 3 to 5. The outputs are no weighted means of values either: 1e-6 draws them to 0 where a
    bucket is nearly empty. The released code adds tables up, L times this, which its output projection learns.

    Parameters, shapes and errors are those of `race_attention`; the value [..., Hq, T, E] comes alone, as the weights
    of a row have no common sum. A causal query at a slot that is not valid gets 0.
    """
    given = checked_sequences(query, keys, values, causal, kv_start, kv_len)
    require_planes(planes, keys.shape[-1])
    require_features(planes.num_planes, planes.num_tables)
    law = planes.weights, require_beta(beta, planes.num_planes)
    asked = grouped(given.query, keys.shape[-3])
    if not causal:
        means = _means(sums_of_tokens(given.keys, given.values, given.valid, *law))
        value = np.einsum("bhgtlr,bhlre->bhgte", soft_buckets(asked, *law), means, optimize=True)
        return _shaped(value / planes.num_tables, query, values)
    before = slice(given.first)
    sums = sums_of_tokens(given.keys[:, :, before], given.values[:, :, before], given.valid[:, before], *law)
    value = np.zeros((*asked.shape[:-1], values.shape[-1]))
    for start in range(0, query.shape[-2], _CHUNK):
        some = slice(start, min(start + _CHUNK, query.shape[-2]))
        own = slice(given.first + some.start, given.first + some.stop)
        valid = given.valid[:, own]
        held = soft_buckets(cleared(given.keys[:, :, own], valid), *law) * valid[:, None, :, None, None]
        seen = cleared(given.values[:, :, own], valid)
        upto = BucketSums(
            sums.mass[:, :, None] + np.cumsum(held, axis=2),
            sums.weighted[:, :, None] + np.cumsum(held[..., None] * seen[:, :, :, None, None], axis=2),
        )
        mine = soft_buckets(cleared(asked[..., some, :], valid), *law) * valid[:, None, None, :, None, None]
        value[..., some, :] = np.einsum("bhgtlr,bhtlre->bhgte", mine, _means(upto), optimize=True)
        sums = BucketSums(upto.mass[:, :, -1], upto.weighted[:, :, -1])
    return _shaped(value / planes.num_tables, query, values)


def _means(sums: BucketSums) -> NDArray[np.float64]:
    """What each bucket's values average to, [..., L, R, E]."""
    return np.asarray(sums.weighted / (sums.mass[..., None] + RELEASED_EPSILON))


def _shaped(value: NDArray[np.float64], query: NDArray[Any], values: NDArray[Any]) -> NDArray[np.float64]:
    return value.reshape(*query.shape[:-1], values.shape[-1])
