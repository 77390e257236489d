"""S1-S3: what a soft collision is, its two limits, and the law of the hard one."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp

from socket_theory.core.claim import Claim, Context, Measurement, combine, inequality, worst
from socket_theory.core.hashing import (
    QUERY_MAPS,
    Codes,
    QueryMap,
    SignHash,
    apply_query_map,
    code_signs,
    hash_keys,
    project_query,
)
from socket_theory.core.thresholds import binomial_mean
from socket_theory.socket_lsh.collisions import hard_collision_scores, log_soft_collisions, soft_collision_scores

Float = NDArray[np.float64]
HEAD_DIM = 8
ROUNDING = 1e-11


def _hashed(context: Context, num_planes: int, query_map: QueryMap = "tanh", norm: float = 4.0) -> tuple[Float, Codes]:
    """h [8, P] of a random query of length `norm`, and the codes [8, 65] of 64 random keys, the query itself last."""
    rng = context.generator()
    query = rng.standard_normal(HEAD_DIM)
    query *= norm / np.linalg.norm(query)
    planes = SignHash(8, num_planes, HEAD_DIM).draw(context.key)
    keys = np.vstack([rng.standard_normal((64, HEAD_DIM)), query])
    return apply_query_map(project_query(query, planes), query_map, HEAD_DIM), hash_keys(keys, planes)


def _factorisation(context: Context, scale: float) -> Measurement:
    """Softmax over all 2^P corners against the product of bits, with every exponent times `scale`."""
    errors = []
    for num_planes in (1, 3, 9):
        for query_map, temperature in zip(QUERY_MAPS, (0.05, 0.4, 3.0), strict=True):
            mapped, codes = _hashed(context, num_planes, query_map)
            corners = code_signs(np.arange(2**num_planes, dtype=np.uint16), num_planes)
            logits = mapped @ corners.T / temperature
            truth = np.take_along_axis(logits - logsumexp(logits, axis=1, keepdims=True), codes.astype(np.intp), axis=1)
            product = log_soft_collisions(scale * mapped, codes, temperature)
            scores = soft_collision_scores(scale * mapped, codes, temperature)
            errors.append(np.max(np.abs(product - truth) / np.maximum(1, np.abs(truth))))
            errors.append(np.max(np.abs(scores / np.exp(truth).mean(axis=0) - 1)))
    return worst(errors, ROUNDING)


def _cold(context: Context, num_planes: int, factor: float) -> Measurement:
    mapped, codes = _hashed(context, num_planes)
    match = np.all(code_signs(codes, num_planes) == np.where(mapped >= 0, 1, -1)[:, None], axis=-1)
    parts = []
    for temperature in (1.0, 0.3, 0.1):
        distance = np.abs(np.exp(log_soft_collisions(mapped, codes, temperature)) - match)
        bound = expit(-2 * np.abs(mapped) / temperature).sum(axis=1, keepdims=True)
        parts.append(inequality(distance, factor * bound + ROUNDING))
    return combine(*parts)


def _cold_check(context: Context) -> Measurement:
    several, single = context.split("several planes", "one plane")
    return combine(_cold(several, 4, 1.0), _cold(single, 1, 1.0))


def _cold_control(context: Context) -> Measurement:
    return _cold(context.split("several planes", "one plane")[1], 1, 0.5)


def _hot(context: Context, norm: float, temperatures: tuple[float, ...], factor: float) -> Measurement:
    num_planes = 4
    mapped, codes = _hashed(context, num_planes, norm=norm)
    parts = []
    for temperature in temperatures:
        excess = np.expm1(log_soft_collisions(mapped, codes, temperature) + num_planes * np.log(2))
        bits = np.tanh(mapped / temperature)
        linear = np.einsum("lp,lnp->ln", bits, code_signs(codes, num_planes))
        total = np.abs(bits).sum(axis=1, keepdims=True)
        parts.append(inequality(np.abs(excess - linear), factor * (np.expm1(total) - total) + ROUNDING))
    return combine(*parts)


def _hot_check(context: Context) -> Measurement:
    return combine(_hot(context, 4.0, (0.4, 1.0, 10.0), 1.0), _hot(context, 100.0, (100.0,), 1.0))


def _hot_control(context: Context) -> Measurement:
    return _hot(context, 100.0, (100.0,), 0.5)


def _sketch_order(context: Context, weighted: bool) -> Measurement:
    """The share of key pairs that the scores at tau = 1e7 and the sign sketch order differently."""
    num_planes = 8
    mapped, codes = _hashed(context, num_planes)
    scores = soft_collision_scores(mapped, codes, 1e7)
    sketch = np.einsum("lp,lnp->n", mapped if weighted else np.sign(mapped), code_signs(codes, num_planes))
    above = np.sign(scores[:, None] - scores), np.sign(sketch[:, None] - sketch)
    return Measurement(float(np.mean(above[0] != above[1])), 1e-3)


def _collision_law(context: Context, extra_planes: int) -> Measurement:
    angles = np.array([0.2, 0.8, 1.5, 2.4])
    parts = []
    for num_planes, part in zip((1, 3), context.split("one plane", "three planes"), strict=True):
        rng = part.generator()
        query, other = np.linalg.qr(rng.standard_normal((HEAD_DIM, 2)))[0].T
        keys = np.cos(angles)[:, None] * query + np.sin(angles)[:, None] * other
        trials, matches = part.samples(20_000), np.zeros(len(angles))
        for key, count in part.batches(trials, 20_000):
            planes = SignHash(count, num_planes, HEAD_DIM).draw(key)
            matches += count * hard_collision_scores(project_query(query, planes), hash_keys(keys, planes))
        law = (1 - angles / np.pi) ** (num_planes + extra_planes)
        parts.append(binomial_mean(np.rint(matches), trials, law, part.level()))
    return combine(*parts)


CLAIMS = (
    Claim(
        id="S1",
        title="Factorisation",
        statement="The softmax of <h, c>/tau over the 2^P corners c, read at a key's corner, is the product over "
        "planes of sigma(2 h_p s_p / tau); products of chunks of the planes may be tabulated and multiplied.",
        source="own proof; the corner sum of a product is the product of two-term sums",
        kind="identity",
        wrong="sigma(h s / tau), the factor 2 forgotten",
        check=partial(_factorisation, scale=1.0),
        control=partial(_factorisation, scale=0.5),
    ),
    Claim(
        id="S2.cold",
        title="Cold limit: hard LSH",
        statement="|w - 1[same bucket]| <= sum_p sigma(-2|h_p|/tau), so w tends to the hard collision as tau -> 0.",
        source="own proof; union bound over the planes, an equality for one plane",
        kind="inequality",
        wrong="the bound halved, on one plane",
        check=_cold_check,
        control=_cold_control,
    ),
    Claim(
        id="S2.hot",
        title="Hot limit: first order",
        statement="|2^P w - 1 - sum_p tanh(h_p s_p/tau)| <= e^T - 1 - T with T = sum_p |tanh(h_p/tau)|.",
        source="own proof; the elementary symmetric polynomials of degree >= 2 are below T^k/k!",
        kind="inequality",
        wrong="the bound halved, on four equal planes at tau = 100",
        check=_hot_check,
        control=_hot_control,
    ),
    Claim(
        id="S2.sign-sketch",
        title="Hot limit: ranking",
        statement="As tau -> infinity, keys whose sign sketches A_i, the sum over l, p of h_lp s_ilp, differ are "
        "ranked by them.",
        source="S2.hot",
        kind="identity",
        wrong="sign(h) in place of h, which ranks by Hamming distance",
        check=partial(_sketch_order, weighted=True),
        control=partial(_sketch_order, weighted=False),
    ),
    Claim(
        id="S3",
        title="Hard-collision law",
        statement="A key at angle theta shares the query's bucket with probability (1 - theta/pi)^P.",
        source="Goemans and Williamson 1995; Charikar 2002",
        kind="mean",
        wrong="exponent P + 1",
        check=partial(_collision_law, extra_planes=0),
        control=partial(_collision_law, extra_planes=1),
    ),
)
