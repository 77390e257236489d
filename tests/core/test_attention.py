"""The targets against their definitions, and the algebra of states."""

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="pip install 'socket-theory[test]'")
import itertools

from hypothesis import given
from hypothesis import strategies as st

from socket_theory import (
    AttentionState,
    Key,
    SoftKernel,
    angles,
    angular_attention,
    attention_logits,
    empty_state,
    hard_kernel,
    merge_states,
    soft_angular_attention,
    softmax_attention,
)

DRAW = Key.from_seed(2).generator()
QUERY, KEYS, VALUES = DRAW.standard_normal(8), DRAW.standard_normal((20, 8)), DRAW.standard_normal((20, 5))


def test_softmax_attention_is_the_softmax():
    weights = np.exp(KEYS @ QUERY / np.sqrt(8))
    state = softmax_attention(QUERY, KEYS, VALUES)
    np.testing.assert_allclose(state.value, weights @ VALUES / weights.sum(), rtol=1e-13)
    np.testing.assert_allclose(state.lse, np.log(weights.sum()), rtol=1e-13)
    np.testing.assert_allclose(attention_logits(QUERY, KEYS, 0.3), 0.3 * KEYS @ QUERY, rtol=1e-13)


def test_softmax_attention_survives_logits_that_overflow_exp():
    state = softmax_attention(1e30 * QUERY, 1e30 * KEYS, VALUES)
    np.testing.assert_array_equal(state.value, VALUES[np.argmax(KEYS @ QUERY)])
    assert np.isfinite(state.lse)


def test_many_queries_are_attended_to_one_by_one():
    queries = DRAW.standard_normal((3, 4, 8)) * np.array([0.1, 1.0, 400.0])[:, None, None]
    together = softmax_attention(queries, KEYS, VALUES)
    for place in np.ndindex(3, 4):
        alone = softmax_attention(queries[place], KEYS, VALUES)
        np.testing.assert_allclose(together.value[place], alone.value, rtol=1e-12)
        np.testing.assert_allclose(together.lse[place], alone.lse, rtol=1e-12)


def test_chunked_sums_equal_one_sum():
    keys, values = DRAW.standard_normal((2, 20000, 4))
    weights = np.exp(keys @ QUERY[:4] / 2)
    np.testing.assert_allclose(
        softmax_attention(QUERY[:4], keys, values).value, weights @ values / weights.sum(), rtol=1e-11
    )


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30])
def test_angles_keep_small_ones_and_call_zero_vectors_orthogonal(scale):
    directions = np.array([0.0, 1e-9, 0.5, np.pi / 2, np.pi - 1e-9, np.pi])
    keys = np.stack([np.cos(directions), np.sin(directions)], axis=1) * scale
    np.testing.assert_allclose(angles(np.array([2.0, 0.0]), keys), directions, rtol=1e-7, atol=1e-16)
    np.testing.assert_array_equal(angles(np.zeros(2), keys), np.full(6, np.pi / 2))


def test_angular_attention_weighs_by_the_collision_probability():
    kernel = hard_kernel(angles(QUERY, KEYS), 4)
    state = angular_attention(QUERY, KEYS, VALUES, 4)
    assert state.kind == "angular"
    np.testing.assert_allclose(state.value, kernel @ VALUES / kernel.sum(), rtol=1e-12)
    np.testing.assert_allclose(state.lse, np.log(kernel.sum()), rtol=1e-12)


def test_soft_angular_attention_weighs_by_the_soft_kernel_and_tends_to_the_angular_one():
    law = SoftKernel(num_planes=4, temperature=0.4, query_map="tanh", head_dim=8)
    kernel = law.mean(angles(QUERY, KEYS), np.linalg.norm(QUERY))
    state = soft_angular_attention(QUERY, KEYS, VALUES, law)
    np.testing.assert_allclose(state.value, kernel @ VALUES / kernel.sum(), rtol=1e-9)
    np.testing.assert_allclose(state.lse, np.log(kernel.sum()), rtol=1e-9)
    cold = soft_angular_attention(QUERY, KEYS, VALUES, SoftKernel(4, 1e-6, "tanh", 8))
    np.testing.assert_allclose(cold.value, angular_attention(QUERY, KEYS, VALUES, 4).value, rtol=1e-5)


def states(parts):
    return [softmax_attention(QUERY, KEYS[p], VALUES[p]) if len(p) else empty_state((5,)) for p in parts]


@given(cuts=st.lists(st.integers(0, 20), max_size=6), order=st.randoms(use_true_random=False))
def test_any_split_merged_in_any_order_is_the_whole(cuts, order):
    tokens = list(range(20))
    order.shuffle(tokens)
    edges = [0, *sorted(cuts), 20]
    pieces = states([tokens[a:b] for a, b in itertools.pairwise(edges)])
    merged = empty_state((5,))
    for piece in pieces:
        merged = merge_states(piece, merged) if order.random() < 0.5 else merge_states(merged, piece)
    whole = softmax_attention(QUERY, KEYS, VALUES)
    np.testing.assert_allclose(merged.value, whole.value, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(merged.lse, whole.lse, rtol=1e-12)


def test_merging_nothing_is_nothing_and_extreme_weights_do_not_overflow():
    nothing = merge_states(empty_state((2, 5)), empty_state((2, 5)))
    assert (nothing.lse == -np.inf).all()
    assert (nothing.value == 0).all()
    heavy = AttentionState(np.ones(5), np.array(1e30))
    light = AttentionState(np.full(5, 7.0), np.array(-1e30))
    np.testing.assert_array_equal(merge_states(light, heavy).value, np.ones(5))
