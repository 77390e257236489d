"""A shared set is ranked by the sum of the heads' scores, also where some of them underflow on their own."""

import dataclasses

import numpy as np
import pytest

from socket_theory import Budget, HardLSH, Key, OracleTopK, Socket
from socket_theory.core.selector import Selector
from socket_theory.socket_lsh.operations import NumpyOperations

KEY = Key.from_seed(21)
TOKENS, DIM = 60, 8


def problem(seed, num_kv_heads=2, heads=2, signs=(1, -1, 0.5, -0.25)):
    """Queries [1, Hq, D] along an axis of each KV head, keys [1, Hkv, N, D] near it, values."""
    draw = KEY.fold_in("problem", seed).generator()
    axis = draw.standard_normal((num_kv_heads, 1, DIM))
    signs = np.array(signs)[:heads, None]
    axis = axis / np.linalg.norm(axis, axis=-1, keepdims=True)
    keys, values = draw.standard_normal((2, 1, num_kv_heads, TOKENS, DIM))
    return (3 * signs * axis).reshape(1, -1, DIM), 2 * axis + keys / 5, values


def log_scores(method, query, cache):
    """Exact log soft scores [Hkv, group, N]."""
    settings = cache.kv_range, cache.sample, method.query_map, method.temperature
    logs = NumpyOperations().log_soft_scores(query, cache.index.arrays["codes"], *settings)[0]
    return logs.reshape(cache.keys.shape[1], -1, logs.shape[-1])


def some_vanish(logs):
    """Whether some group has heads whose scores underflow in float32 beside others whose do not."""
    peaks, least = logs.max(axis=-1), np.log(np.finfo(np.float32).tiny)
    return bool(((peaks.min(axis=-1) < least) & (peaks.max(axis=-1) > least)).any())


def exact_totals(method, query, cache):
    """Float64 sums over each KV head's group of the soft scores, [Hkv, N], relative to the largest of each."""
    grouped = log_scores(method, query, cache)
    totals = np.exp(grouped - grouped.max(axis=(1, 2), keepdims=True)).sum(axis=1)
    return totals * cache.index.arrays["value_norms"][0] if method.value_weight else totals


@pytest.mark.parametrize("value_weight", [False, True])
@pytest.mark.parametrize("temperature", [0.2, 0.05, 0.02])
@pytest.mark.parametrize("heads", [2, 4])
def test_no_token_left_out_weighs_more_than_one_that_is_kept(temperature, heads, value_weight):
    method = Socket(16, 4, query_map="tanh", temperature=temperature, value_weight=value_weight)
    seen = 0
    for seed in range(12):
        query, keys, values = problem(seed, heads=heads)
        cache = method.prepare(keys, values, key=KEY.fold_in("planes", seed))
        kept = method.attend(query, cache, budget=Budget(tokens=4, per="kv_head")).indices[0]
        for kv_head, totals in enumerate(exact_totals(method, query, cache)):
            group = kept[heads * kv_head : heads * kv_head + heads]
            assert (group == group[0]).all()
            left = np.delete(totals, group[0])
            assert totals[group[0]].min() >= (1 - 1e-6) * left.max(), seed
        seen += some_vanish(log_scores(method, query, cache))
    assert seen > 6


def test_heads_that_all_vanish_are_added_on_one_scale():
    """Queries that point away from the keys, at depths of which none is far below the other."""
    method = Socket(16, 4, query_map="tanh", temperature=0.1)
    query, keys, values = problem(7, signs=(-1.0, -0.95))
    cache = method.prepare(keys, values, key=KEY)
    peaks = log_scores(method, query, cache).max(axis=-1)
    assert (peaks < np.log(np.finfo(np.float32).tiny)).all()
    assert ((abs(np.diff(peaks)) > 0.5) & (abs(np.diff(peaks)) < 10)).all()
    settings = cache.kv_range, cache.sample, method.query_map, method.temperature
    scores = NumpyOperations().soft_scores(query, cache.index.arrays["codes"], *settings, shared=True)
    totals = scores.reshape(2, 2, -1).sum(axis=1, dtype=np.float64)
    np.testing.assert_allclose(totals, exact_totals(method, query, cache), rtol=1e-6, atol=1e-37)


def test_a_vanished_head_keeps_a_set_of_its_own_as_before():
    method = Socket(16, 4, query_map="tanh", temperature=0.2)
    query, keys, values = problem(3)
    cache = method.prepare(keys, values, key=KEY)
    logs = log_scores(method, query, cache)
    assert some_vanish(logs)
    logs, peaks = logs.reshape(4, -1), logs.reshape(4, -1).max(axis=-1)
    kept = method.attend(query, cache, budget=Budget(tokens=1)).indices[0, :, 0]
    assert (logs[np.arange(4), kept] >= peaks - 1e-6).all()


def test_shares_of_matching_tables_and_exact_logits_are_added():
    query, keys, values = problem(5, heads=4)
    budget = Budget(tokens=6, per="kv_head")
    oracle = OracleTopK().prepare(keys, values)
    logits = np.einsum("hgd,hnd->hn", query.reshape(2, 4, DIM), keys[0])
    for kv_head, kept in enumerate(OracleTopK().attend(query, oracle, budget=budget).indices[0, ::4]):
        np.testing.assert_array_equal(kept, np.sort(np.argsort(logits[kv_head])[-6:]))
    method = HardLSH(3, 40)
    cache = method.prepare(keys, values, key=KEY)
    matches = NumpyOperations().hard_scores(query, cache.index.arrays["codes"], cache.kv_range, cache.sample)[0]
    counts = np.rint(matches.reshape(2, 4, -1) * 40).sum(axis=1)
    for kv_head, kept in enumerate(method.attend(query, cache, budget=budget).indices[0, ::4]):
        assert counts[kv_head, kept].min() >= np.delete(counts[kv_head], kept).max()


@dataclasses.dataclass(frozen=True)
class Given(Selector):
    """Scores by a rule of the user's own: the smallest numbers for one head of two, ordinary ones for the other."""

    def scores(self, step):
        rising = np.arange(TOKENS, dtype=np.float32)
        return np.stack([1e-40 * rising, rising[::-1]] * 2)[None].astype(np.float32)


def test_scores_of_the_users_own_are_added_as_they_are():
    query, keys, values = problem(6)
    kept = Given().attend(query, Given().prepare(keys, values), budget=Budget(tokens=3, per="kv_head")).indices
    assert kept[0].tolist() == [[0, 1, 2]] * 4
