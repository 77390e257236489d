"""One decode step of every method, written out token by token, on every backend."""

import math

import numpy as np
import pytest

from socket_theory import (
    Budget,
    Dense,
    HardLSH,
    Key,
    OracleTopK,
    Race,
    RandomTokens,
    SignHash,
    Socket,
    SocketSampling,
    Window,
)
from socket_theory.core.hashing import round_to_bfloat16
from socket_theory.core.rng import uniform
from socket_theory.testing import assert_close

KEY = Key.from_seed(21)
HQ, HKV, SLOTS, DIM, START, LENGTH, SM_SCALE = 4, 2, 48, 16, 3, 40, 0.7
DRAW = KEY.generator()
QUERY = 2 * DRAW.standard_normal((1, HQ, DIM))
KEYS = DRAW.standard_normal((1, HKV, SLOTS, DIM)) + 0.5
VALUES = DRAW.standard_normal((1, HKV, SLOTS, DIM)) * DRAW.uniform(0.1, 4, (1, HKV, SLOTS, 1))
BUDGET = Budget(tokens=12, sink=2, window=3)
TOKENS = range(START, START + LENGTH)


def planes_of(method):
    return SignHash(method.num_tables, method.num_planes, DIM).draw(KEY).weights


def key_of(head, token):
    return KEYS[0, head // (HQ // HKV), token]


def bit_law(method, query):
    """Twice what is made of the query's projections, over the temperature."""
    z = planes_of(method) @ query
    mapped = {"tanh_scaled": np.tanh(z) / math.sqrt(DIM), "tanh": np.tanh(z), "linear": z}[method.query_map]
    return 2 * mapped / method.temperature


# What a token is ranked by, in float64.


def by_logit(method, head, token):
    return QUERY[0, head] @ key_of(head, token)


def by_recency(method, head, token):
    return token


def by_uniform(method, head, token):
    return float(uniform(KEY, (head << 32) | (token - START)))


def by_matches(method, head, token):
    signs = (np.where(planes_of(method) @ row >= 0, 1, -1) for row in (QUERY[0, head], key_of(head, token)))
    mine, theirs = signs
    return np.mean(np.all(mine == theirs, axis=1)) + 1e-9 * token


def by_collision(method, head, token):
    key, value = key_of(head, token), VALUES[0, head // (HQ // HKV), token]
    if method.center_keys:
        key = key - KEYS[0, head // (HQ // HKV), list(TOKENS)].mean(0)
    sign = np.where(planes_of(method) @ key >= 0, 1, -1)
    weight = np.prod(1 / (1 + np.exp(-bit_law(method, QUERY[0, head]) * sign)), axis=1).mean()
    return weight * (float(round_to_bfloat16(np.linalg.norm(value))) if method.value_weight else 1.0)


def softmax_over(head, tokens):
    kv_head = head // (HQ // HKV)
    logits = [SM_SCALE * QUERY[0, head] @ KEYS[0, kv_head, t] for t in tokens]
    weights = np.exp(np.array(logits) - max(logits))
    value = sum(w * VALUES[0, kv_head, t] for w, t in zip(weights, tokens, strict=True)) / weights.sum()
    return value, math.log(weights.sum()) + max(logits)


def run(backend, method, **options):
    drawn = {} if method.sample_type is None else {"key": KEY}
    cache = backend.prepare(method, KEYS, VALUES, kv_start=START, kv_len=LENGTH, **drawn)
    return method.attend(backend.put(QUERY), cache, **options)


TOP_K = [
    (OracleTopK(), by_logit),
    (Window(), by_recency),
    (RandomTokens(), by_uniform),
    (HardLSH(num_planes=3, num_tables=9), by_matches),
    (Socket(num_tables=9), by_collision),
    (Socket(num_tables=9, query_map="tanh", temperature=0.7), by_collision),
    (Socket(num_tables=9, query_map="linear", temperature=3.0, num_planes=4), by_collision),
    (Socket(num_tables=9, value_weight=True), by_collision),
    (Socket(num_tables=9, center_keys=True), by_collision),
]


@pytest.mark.parametrize(("method", "score"), TOP_K, ids=lambda given: str(getattr(given, "__name__", given)))
def test_top_k_step(backend, method, score):
    options = {"key": KEY} if "key" in method.takes else {}
    estimate = run(backend, method, budget=BUDGET, sm_scale=SM_SCALE, **options)
    forced = [*TOKENS[:2], *TOKENS[-3:]]
    for head in range(HQ):
        rest = sorted((t for t in TOKENS if t not in forced), key=lambda t: score(method, head, t), reverse=True)
        kept = sorted(forced + rest[:7])
        assert backend.get(estimate.indices)[0, head].tolist() == kept
        value, lse = softmax_over(head, kept)
        assert_close(backend.get(estimate.value)[0, head], value, "float64")
        assert_close(backend.get(estimate.lse)[0, head], lse, "float64")
        assert (estimate.stats.captured_mass is None) == (score is not by_logit)
        if score is by_logit:
            mass = math.exp(lse - softmax_over(head, TOKENS)[1])
            assert estimate.stats.captured_mass[0, head] == pytest.approx(mass, rel=1e-10)


def test_shared_step_ranks_by_the_sum_of_the_group(backend):
    method = Socket(num_tables=9, value_weight=True)
    estimate = run(backend, method, budget=Budget(tokens=12, per="kv_head"), sm_scale=SM_SCALE)
    for head in range(HQ):
        heads = [head // 2 * 2, head // 2 * 2 + 1]
        ranked = sorted(TOKENS, key=lambda t: sum(by_collision(method, h, t) for h in heads), reverse=True)
        assert backend.get(estimate.indices)[0, head].tolist() == sorted(ranked[:12])


def test_dense_step(backend):
    estimate = run(backend, Dense(), sm_scale=SM_SCALE)
    default = run(backend, Dense())
    assert (estimate.stats.captured_mass == 1).all()
    for head in range(HQ):
        value, lse = softmax_over(head, TOKENS)
        assert_close(backend.get(estimate.value)[0, head], value, "float64")
        assert_close(backend.get(estimate.lse)[0, head], lse, "float64")
        logits = QUERY[0, head] @ KEYS[0, head // 2, list(TOKENS)].T / math.sqrt(DIM)
        assert_close(backend.get(default.lse)[0, head], np.log(np.exp(logits).sum()), "float64")


@pytest.mark.parametrize("value_aware", [False, True])
@pytest.mark.parametrize("temperature", [0.4, 1e-4])
def test_sampling_step(backend, value_aware, temperature):
    method = SocketSampling(
        num_tables=9, num_samples=50, value_aware=value_aware, query_map="tanh", temperature=temperature
    )
    estimate = run(backend, method, key=KEY)
    hashed = method.prepare(
        backend.put(KEYS), backend.put(VALUES), kv_start=START, kv_len=LENGTH, backend=backend.engine, key=KEY
    )
    expected = method.expectation(backend.put(QUERY), hashed)
    assert estimate.kind == expected.kind == "angular"
    for head in range(HQ):
        rows = VALUES[0, head // 2, list(TOKENS)]
        exponent, planes = bit_law(method, QUERY[0, head]), planes_of(method)
        sign = np.where(np.einsum("lpd,nd->nlp", planes, KEYS[0, head // 2, list(TOKENS)]) >= 0, 1, -1)
        logs = np.logaddexp.reduce(-np.logaddexp(0, -exponent * sign).sum(-1), axis=-1) - math.log(9)
        weights = np.exp(logs - logs.max())
        assert_close(backend.get(expected.value)[0, head], weights @ rows / weights.sum(), "float64")
        for lse in (estimate.lse, expected.lse):
            assert_close(backend.get(lse)[0, head], np.logaddexp.reduce(logs), "float64")
        norms = round_to_bfloat16(np.linalg.norm(rows, axis=1)) if value_aware else np.ones(LENGTH)
        law = np.cumsum(weights * norms)
        points = uniform(KEY, (head << 32) | np.arange(50))
        drawn = [int(np.searchsorted(law, u * law[-1], side="right")) for u in points]
        mean = np.mean([rows[j] / norms[j] for j in drawn], axis=0) * law[-1] / weights.sum()
        assert_close(backend.get(estimate.value)[0, head], mean, "float64")
        used = backend.get(estimate.indices)[0, head]
        assert used[used >= 0].tolist() == sorted({START + j for j in drawn})


def test_race_step(backend):
    method = Race(num_planes=3, num_tables=9, beta=1.3)
    estimate = run(backend, method)
    assert estimate.kind == "angular"
    for head in range(HQ):
        weights = []
        for token in TOKENS:
            both = QUERY[0, head], key_of(head, token)
            asked, held = (1 / (1 + np.exp(-2.6 * np.tanh(planes_of(method) @ row))) for row in both)
            weights.append(np.prod(asked * held + (1 - asked) * (1 - held), axis=1).mean())
        value = np.array(weights) @ VALUES[0, head // (HQ // HKV), list(TOKENS)] / sum(weights)
        assert_close(backend.get(estimate.value)[0, head], value, "float64")
        assert_close(backend.get(estimate.lse)[0, head], math.log(sum(weights)), "float64")
        assert backend.get(estimate.indices)[0, head].tolist() == list(TOKENS)


def test_stats_count_what_was_read():
    method = Socket(num_tables=9, value_weight=True)
    cache = method.prepare(KEYS, VALUES, key=KEY, kv_start=START, kv_len=LENGTH)
    estimate = method.attend(QUERY, cache, budget=BUDGET)
    union = sum(
        len(set(estimate.indices[0, 2 * g].tolist() + estimate.indices[0, 2 * g + 1].tolist())) for g in range(HKV)
    )
    index = HKV * LENGTH * (9 * 2 + 4)
    assert estimate.stats.bytes == index + union * 2 * DIM * 8
    assert estimate.stats.nominal_bits == 90
    assert estimate.stats.bits_per_token == 9 * 16 + 32
    assert cache.nbytes == 2 * KEYS.nbytes + HKV * SLOTS * (9 * 2 + 4)


def test_presets_are_what_they_say():
    assert Socket() == Socket(num_planes=10, num_tables=60, query_map="tanh_scaled", temperature=0.4)
    assert (Socket().value_weight, Socket().center_keys) == (False, False)
    assert Socket.as_released() == Socket(query_map="tanh_scaled", value_weight=True)
    assert Socket.as_documented() == Socket(query_map="tanh", value_weight=True)
