"""Bernoulli scores: a query rounded at random to ternary vectors, E q^ = q, and what softmax makes of it (N11, N12).

Feature i fires with probability pi_i = |q_i| / max|q|; of B vectors, `hits` counts how many it fires in, and
q^_i = sign(q_i) max|q| hits_i / B. A key feature that never fires is not read.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from socket_theory.core.checks import require_count, require_finite, require_numbers
from socket_theory.santa.samplers import Float, Int, require_uniforms, shifted_floor

QuerySampler = Literal["stratified", "iid"]
# Squares of magnitudes from here on are precise in float64.
_LEAST_MAGNITUDE = 1e-140


def require_query_sampler(name: str, value: QuerySampler) -> QuerySampler:
    """`value` if it is a QuerySampler, else ValueError."""
    if value not in get_args(QuerySampler):
        raise ValueError(f"{name}={value!r} is unknown: pass one of {', '.join(get_args(QuerySampler))}.")
    return value


def firing_probabilities(magnitudes: Float) -> Float:
    """|q_i| / max|q|: [..., D] -> [..., D], zero for a zero query. No smaller divisor is unbiased, it clips.

    Raises TypeError for what holds no numbers, ValueError for NaN, infinity, and a largest magnitude beyond 1e32, or
    below 1e-140 but for zero.
    """
    sizes = np.abs(_require_vectors("magnitudes", magnitudes))
    largest = _largest("magnitudes", sizes)
    return np.asarray(sizes / np.where(largest > 0, largest, 1))


def _require_vectors(name: str, value: Float) -> Float:
    vectors = require_numbers(name, value)
    require_finite(name, vectors)
    if vectors.ndim == 0 or vectors.shape[-1] == 0:
        raise ValueError(f"{name} has shape {vectors.shape}: pass [..., D] with at least one feature.")
    return vectors


def _largest(name: str, magnitudes: Float) -> Float:
    """max|q| along the last axis, kept as one of length 1."""
    largest = np.max(np.abs(magnitudes), axis=-1, keepdims=True)
    if ((largest > 0) & (largest < _LEAST_MAGNITUDE)).any():
        raise ValueError(
            f"{name} reach {largest[largest > 0].min():.3g} at most: rescale to {_LEAST_MAGNITUDE:g} or pass zeros."
        )
    return np.asarray(largest)


def iid_hits(probabilities: Float, points: Float) -> Int:
    """Binomial(B, pi_i), independent over features: [..., D], points [..., B, D] -> [..., D]."""
    return np.asarray((require_uniforms("points", points) < probabilities[..., None, :]).sum(axis=-2))


def stratified_hits(probabilities: Float, num_vectors: int, points: Float) -> Int:
    """floor(B pi_i) + Bernoulli(frac(B pi_i)): pi_i against one uniform in each of B strata. All [..., D]."""
    return shifted_floor(require_count("num_vectors", num_vectors) * probabilities, require_uniforms("points", points))


def sampled_query(query: Float, hits: Int, num_vectors: int) -> Float:
    """q^ = sign(q) max|q| hits / B, unbiased for q. Shapes: query [..., D], hits [..., D] -> [..., D]. Source: N11.

    Raises ValueError for a largest magnitude below 1e-140, but for zero.
    """
    query = _require_vectors("query", query)
    largest = _largest("query", query)
    return np.asarray(np.sign(query) * largest * hits / require_count("num_vectors", num_vectors))


def group_magnitudes(queries: Float) -> Float:
    """m_i = mean over the group of |q_gi|: [..., G, D] -> [..., D]; `hits` of a shared draw are those of m."""
    return np.asarray(np.abs(_require_vectors("queries", queries)).mean(axis=-2))


def shared_sampled_queries(queries: Float, hits: Int, num_vectors: int) -> Float:
    """(m^/m) q_g for every head of a group, 0 where m is: [..., G, D], hits of m [..., D] -> [..., G, D]. N11."""
    mean = group_magnitudes(queries)
    ratio = sampled_query(mean, hits, num_vectors) / np.where(mean > 0, mean, 1)
    return queries * ratio[..., None, :]


def query_variance(query: Float, num_vectors: int, sampler: QuerySampler) -> Float:
    """Var q^_i [..., D]: |q_i| (max|q| - |q_i|) / B iid, (max|q|/B)^2 f (1 - f) stratified, f = frac(B pi_i). N11."""
    query, vectors = _require_vectors("query", query), require_count("num_vectors", num_vectors)
    largest = _largest("query", query)
    fraction = firing_probabilities(query)
    if require_query_sampler("sampler", sampler) == "iid":
        return np.asarray(largest**2 * fraction * (1 - fraction) / vectors)
    fraction = vectors * fraction % 1
    return np.asarray((largest / vectors) ** 2 * fraction * (1 - fraction))


def shared_query_variance(queries: Float, num_vectors: int, sampler: QuerySampler) -> Float:
    """Var of `shared_sampled_queries`, (q_gi/m_i)^2 Var m^_i: [..., G, D] -> [..., G, D]."""
    mean = group_magnitudes(queries)
    variance = query_variance(mean, num_vectors, sampler)
    ratio = queries / np.where(mean > 0, mean, 1)[..., None, :]
    return np.asarray(ratio**2 * variance[..., None, :])


def features_read(probabilities: Float, num_vectors: int, sampler: QuerySampler) -> Float:
    """The probability that a key feature is read: 1 - (1 - pi_i)^B iid, min(1, B pi_i) stratified. Source: N11."""
    vectors = require_count("num_vectors", num_vectors)
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("probabilities has an entry outside [0, 1]: pass those of firing_probabilities.")
    if require_query_sampler("sampler", sampler) == "iid":
        return np.asarray(1 - (1 - probabilities) ** vectors)
    return np.minimum(1.0, vectors * probabilities)


def score_covariance(keys: Float, variance: Float, sm_scale: float) -> Float:
    """C_jk = sm_scale^2 sum_i Var(q^_i) K_ji K_ki, shared by all keys as q^ is: [N, D], [D] -> [N, N]. Source: N11."""
    return np.asarray(sm_scale**2 * (keys * variance) @ keys.T)


def softmax_bias(law: Float, covariance: Float) -> Float:
    """E softmax(s^)_j - p_j to second order: p_j [C_jj/2 - (Cp)_j + p'Cp - sum_k p_k C_kk / 2]. It adds up to 0. N12.

    Shapes: law p [N], covariance of the scores [N, N] -> [N].
    """
    own, mixed = np.diag(covariance) / 2, covariance @ law
    return np.asarray(law * (own - mixed + law @ mixed - law @ own))
