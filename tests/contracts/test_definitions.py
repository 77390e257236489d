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


def bit_law(method, query):
    z = SignHash(method.num_tables, method.num_planes, DIM).draw(KEY).weights @ query
    if isinstance(method, HardLSH):
        return z, None
    mapped = {"tanh_scaled": np.tanh(z) / math.sqrt(DIM), "tanh": np.tanh(z), "linear": z}[method.query_map]
    return z, 2 * mapped / method.temperature


def score(method, head, token):
    """What the token is ranked by, in float64."""
    query, kv_head = QUERY[0, head], head // (HQ // HKV)
    key, value = KEYS[0, kv_head, token], VALUES[0, kv_head, token]
    if isinstance(method, OracleTopK):
        return query @ key
    if isinstance(method, Window):
        return token
    if isinstance(method, RandomTokens):
        return float(uniform(KEY, (head << 32) | (token - START)))
    if getattr(method, "center_keys", False):
        key = key - KEYS[0, kv_head, list(TOKENS)].mean(0)
    z, exponent = bit_law(method, query)
    sign = np.where(SignHash(method.num_tables, method.num_planes, DIM).draw(KEY).weights @ key >= 0, 1, -1)
    if isinstance(method, HardLSH):
        return np.mean(np.all(sign == np.where(z >= 0, 1, -1), axis=1)) + 1e-9 * token
    weight = np.prod(1 / (1 + np.exp(-exponent * sign)), axis=1).mean()
    weighs = getattr(method, "value_weight", False) or getattr(method, "value_aware", False)
    return weight * (float(round_to_bfloat16(np.linalg.norm(value))) if weighs else 1.0)


def softmax_over(head, tokens):
    kv_head = head // (HQ // HKV)
    logits = [SM_SCALE * QUERY[0, head] @ KEYS[0, kv_head, t] for t in tokens]
    weights = np.exp(np.array(logits) - max(logits))
    value = sum(w * VALUES[0, kv_head, t] for w, t in zip(weights, tokens, strict=True)) / weights.sum()
    return value, math.log(weights.sum()) + max(logits)


def run(backend, method, **options):
    hashed = {"key": KEY} if hasattr(method, "num_planes") else {}
    put = backend.put
    cache = method.prepare(put(KEYS), put(VALUES), kv_start=START, kv_len=LENGTH, backend=backend.engine, **hashed)
    return method.attend(put(QUERY), cache, **options)


TOP_K = [
    OracleTopK(),
    Window(),
    RandomTokens(),
    HardLSH(num_planes=3, num_tables=9),
    Socket(num_tables=9),
    Socket(num_tables=9, query_map="tanh", temperature=0.7),
    Socket(num_tables=9, query_map="linear", temperature=3.0, num_planes=4),
    Socket(num_tables=9, value_weight=True),
    Socket(num_tables=9, center_keys=True),
]


@pytest.mark.parametrize("method", TOP_K, ids=str)
def test_top_k_step(backend, method):
    options = {"key": KEY} if isinstance(method, RandomTokens) else {}
    estimate = run(backend, method, budget=BUDGET, sm_scale=SM_SCALE, **options)
    forced = [*TOKENS[:2], *TOKENS[-3:]]
    for head in range(HQ):
        rest = sorted((t for t in TOKENS if t not in forced), key=lambda t: score(method, head, t), reverse=True)
        kept = sorted(forced + rest[:7])
        assert backend.get(estimate.indices)[0, head].tolist() == kept
        value, lse = softmax_over(head, kept)
        assert_close(backend.get(estimate.value)[0, head], value, "float64")
        assert_close(backend.get(estimate.lse)[0, head], lse, "float64")
        if isinstance(method, OracleTopK):
            mass = math.exp(lse - softmax_over(head, TOKENS)[1])
            assert estimate.stats.captured_mass[0, head] == pytest.approx(mass, rel=1e-10)


def test_shared_step_ranks_by_the_sum_of_the_group(backend):
    method = Socket(num_tables=9, value_weight=True)
    estimate = run(backend, method, budget=Budget(tokens=12, per="kv_head"), sm_scale=SM_SCALE)
    for head in range(HQ):
        heads = [head // 2 * 2, head // 2 * 2 + 1]
        ranked = sorted(TOKENS, key=lambda t: sum(score(method, h, t) for h in heads), reverse=True)
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
        _, exponent = bit_law(method, QUERY[0, head])
        planes = SignHash(9, 10, DIM).draw(KEY).weights
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
