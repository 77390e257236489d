"""Every Protocol operation against a loop that writes its definition out, on every backend."""

import math

import numpy as np
import pytest

from socket_theory import Budget, Key
from socket_theory.core.backend import operations
from socket_theory.core.hashing import apply_query_map
from socket_theory.core.rows import DenseRows
from socket_theory.socket_lsh.contract import check_operations
from socket_theory.testing import assert_close, check_backend, random_problem

PROBLEM = random_problem(Key.from_seed(7), num_qo_heads=6, num_kv_heads=2, slots=70, num_tables=5, num_planes=9)


def own(backend):
    return operations("socket_lsh", backend.engine)


def rows_of(backend, problem):
    return DenseRows(backend.put(problem.keys), backend.put(problem.values), problem.spans, backend.engine)


def each_valid(problem):
    """(sequence, query head, KV head, slot) of every valid token."""
    group = problem.query.shape[1] // problem.keys.shape[1]
    for row, (start, length) in enumerate(problem.spans):
        for head in range(problem.query.shape[1]):
            for slot in range(start, start + length):
                yield row, head, head // group, slot


def soft_score(problem, row, head, kv_head, slot, query_map, temperature):
    planes = problem.planes.weights
    z = planes @ problem.query[row, head].astype(float)
    h = apply_query_map(z, query_map, planes.shape[-1])
    sign = np.where(planes @ problem.keys[row, kv_head, slot].astype(float) >= 0, 1, -1)
    return np.prod(1 / (1 + np.exp(-2 * h * sign / temperature)), axis=1).mean(), np.all(
        sign == np.where(z >= 0, 1, -1), axis=1
    )


@pytest.mark.parametrize(("query_map", "temperature"), [("tanh_scaled", 0.4), ("tanh", 0.4), ("linear", 2.0)])
def test_soft_and_hard_scores_are_their_definition(backend, query_map, temperature):
    p = PROBLEM
    query, codes = backend.put(p.query), own(backend).hash_keys(backend.put(p.keys), p.spans, p.planes, None)
    slots = p.keys.shape[2]
    soft = backend.get(own(backend).soft_scores(query, codes, p.spans, p.planes, query_map, temperature))
    logs = backend.get(own(backend).log_soft_scores(query, codes, p.spans, p.planes, query_map, temperature))
    hard = backend.get(own(backend).hard_scores(query, codes, p.spans, p.planes))
    soft, logs, hard = (scores[..., :slots] for scores in (soft, logs, hard))
    expected = np.full(soft.shape, -np.inf)
    matches = np.full(soft.shape, -np.inf)
    for place in each_valid(p):
        row, head, _, slot = place
        expected[row, head, slot], match = soft_score(p, *place, query_map, temperature)
        matches[row, head, slot] = match.mean()
    assert soft.dtype == hard.dtype == np.float32
    valid = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(soft), valid)
    error = np.sqrt(np.mean((soft[valid] - expected[valid]) ** 2))
    assert error <= backend.score_error * np.std(expected[valid])
    np.testing.assert_allclose(np.exp(logs), np.where(np.isfinite(expected), expected, 0), rtol=1e-6)
    np.testing.assert_allclose(hard, matches, rtol=1e-6)


def test_norms_means_and_exact_scores_are_their_definition(backend):
    p = PROBLEM
    norms = backend.get(own(backend).value_norms(backend.put(p.values), p.spans))
    means = backend.get(own(backend).mean_keys(backend.put(p.keys), p.spans))
    scores = backend.get(backend.engine.exact_scores(backend.put(p.query), rows_of(backend, p), 0.3))
    for row, head, kv_head, slot in each_valid(p):
        length = math.sqrt(float((p.values[row, kv_head, slot].astype(float) ** 2).sum()))
        assert abs(norms[row, kv_head, slot] - length) <= length * 2.0**-8
        start, length = p.spans[row]
        logits = 0.3 * p.keys[row, kv_head, start : start + length].astype(float) @ p.query[row, head].astype(float)
        assert abs(scores[row, head, slot] - (logits[slot - start] - logits.max())) <= 1e-5
    start, length = p.spans[0]
    np.testing.assert_allclose(
        means[0], p.keys[0, :, start : start + length].astype(float).mean(1), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("group", ["query_head", "kv_head"])
def test_selection_is_a_sorted_prefix_of_the_total_order(backend, group):
    p = PROBLEM
    draw = Key.from_seed(3).generator()
    scores = draw.integers(0, 5, (*p.query.shape[:2], p.keys.shape[2])).astype(np.float32)
    budget = Budget(fraction=0.4, sink=2, window=3, per=group)
    found = backend.get(backend.engine.select(backend.put(scores), p.spans, budget, p.keys.shape[1]))
    assert found.dtype == np.int32
    for row, (start, length) in enumerate(p.spans):
        slots = range(start, start + length)
        for head in range(scores.shape[1]):
            heads = [head] if group == "query_head" else range(head // 3 * 3, head // 3 * 3 + 3)
            total = scores[row, heads].sum(0)
            forced = [s for s in slots if s < start + 2 or s >= start + length - 3]
            rest = sorted((s for s in slots if s not in forced), key=lambda s: (total[s], s), reverse=True)
            expected = sorted((forced + rest)[: budget.kept(int(length))])
            got = found[row, head]
            assert got[: len(expected)].tolist() == expected
            assert (got[len(expected) :] == -1).all()


def test_weighing_multiplies_by_the_norm_of_the_kv_head(backend):
    scores = np.where(Key.from_seed(5).generator().random((2, 6, 70)) < 0.5, -np.inf, 0.5).astype(np.float32)
    norms = Key.from_seed(6).generator().random((2, 2, 70)).astype(np.float32)
    got = backend.get(own(backend).weigh_scores(backend.put(scores), backend.put(norms)))
    np.testing.assert_array_equal(got, np.where(scores < 0, -np.inf, 0.5 * np.repeat(norms, 3, axis=1)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_attention_over_an_index_list_is_its_definition(backend, dtype):
    p = random_problem(Key.from_seed(8), dtype=dtype, slots=40)
    kept = np.full((2, 4, 5), -1, np.int32)
    for row, head, _, slot in each_valid(p):
        kept[row, head, :3] = slot
    kept[:, :, 1:] = -1
    value, lse = backend.engine.attend(backend.put(p.query), rows_of(backend, p), backend.put(kept), 0.2)
    for row, head in np.ndindex(2, 4):
        slot = kept[row, head, 0]
        assert_close(backend.get(value)[row, head], p.values[row, head // 2, slot].astype(float), dtype)
        logit = 0.2 * float(p.query[row, head].astype(float) @ p.keys[row, head // 2, slot].astype(float))
        assert_close(backend.get(lse)[row, head], logit, dtype)


@pytest.mark.parametrize("seed", range(4))
def test_public_checks_pass(backend, seed):
    problem, error = random_problem(Key.from_seed(seed), num_tables=7, slots=50), max(1e-4, backend.score_error)
    check_backend(backend.engine, problem)
    check_operations(backend.engine, problem, score_error=error)


def test_public_check_rejects_a_wrong_backend(backend):
    class Inverted(type(backend.engine)):
        """Keeps the worst tokens."""

        def select(self, scores, kv_range, budget, num_kv_heads):
            return super().select(-scores, kv_range, budget, num_kv_heads)

    with pytest.raises(AssertionError, match=r"^select: the selection of .* differs"):
        check_backend(Inverted(), PROBLEM)
