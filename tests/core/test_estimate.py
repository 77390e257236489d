"""What a step reports, and what the settings of a method do, on caches small enough to count by hand."""

import numpy as np
import pytest

from socket_theory import Budget, Dense, HardLSH, Key, OracleTopK, RandomTokens, SignHash, Socket, Window
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.core.rows import DenseRows
from socket_theory.socket_lsh.operations import NumpyOperations

KEY = Key.from_seed(9)
KEYS, VALUES = KEY.generator().standard_normal((2, 2, 1, 12, 4))
QUERY = KEY.fold_in("query").generator().standard_normal((2, 2, 4))
ROW_BYTES = 2 * 4 * 8  # a key and a value of 4 float64 numbers


def test_bytes_count_the_index_of_every_token_and_a_row_once_a_group():
    window = Window().attend(QUERY, Window().prepare(KEYS, VALUES), budget=Budget(tokens=5))
    assert window.stats.bytes.tolist() == [5 * ROW_BYTES] * 2  # both heads keep the same five rows
    opposite = np.stack([KEYS[:, 0, 3], -KEYS[:, 0, 3]], axis=1)
    oracle = OracleTopK().attend(opposite, OracleTopK().prepare(KEYS, VALUES), budget=Budget(tokens=5))
    assert oracle.stats.bytes.tolist() == [10 * ROW_BYTES] * 2  # the best of one head are the worst of the other
    method = HardLSH(num_planes=4, num_tables=3)
    cache = method.prepare(KEYS, VALUES, key=KEY, kv_len=[12, 7])
    hashed = method.attend(QUERY, cache, budget=Budget(tokens=1, window=1))
    assert hashed.stats.nominal_bits == 12
    assert hashed.stats.bits_per_token == 3 * 16
    assert hashed.stats.bytes.tolist() == [12 * 6 + ROW_BYTES, 7 * 6 + ROW_BYTES]


def test_captured_mass_is_the_softmax_mass_of_the_kept_tokens():
    logits = np.einsum("bhd,bnd->bhn", QUERY, KEYS[:, 0]) / 2
    mass = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    estimate = OracleTopK().attend(QUERY, OracleTopK().prepare(KEYS, VALUES), budget=Budget(tokens=4))
    expected = np.take_along_axis(mass, estimate.indices, axis=-1).sum(-1)
    assert (expected < 0.99).all()
    np.testing.assert_allclose(estimate.stats.captured_mass, expected, rtol=1e-12)
    assert (Dense().attend(QUERY, Dense().prepare(KEYS, VALUES)).stats.captured_mass == 1).all()
    assert Window().attend(QUERY, Window().prepare(KEYS, VALUES)).stats.captured_mass is None


def test_random_tokens_differ_between_sequences_heads_and_keys():
    keys = np.zeros((3, 1, 200, 4))
    cache = RandomTokens().prepare(keys, keys)
    query = np.zeros((3, 2, 4))
    first, second = (
        RandomTokens().attend(query, cache, budget=Budget(tokens=10), key=KEY.fold_in("step", step)).indices
        for step in range(2)
    )
    drawn = {tuple(row) for indices in (first, second) for row in indices.reshape(6, 10).tolist()}
    assert len(drawn) == 12


def test_the_released_settings_weigh_scores_by_the_value_norm():
    released, documented = Socket.as_released(), Socket.as_documented()
    assert (released.query_map, released.temperature, released.value_weight) == ("tanh_scaled", 0.4, True)
    assert (documented.query_map, documented.temperature, documented.value_weight) == ("tanh", 0.4, True)
    assert (released.num_planes, released.num_tables) == (10, 60)
    assert Socket() == Socket(query_map="tanh_scaled", value_weight=False, center_keys=False)


@pytest.mark.parametrize(("value_weight", "kept"), [(False, 11), (True, 4)])
def test_value_norms_decide_among_equal_keys_where_they_are_asked_for(value_weight, kept):
    method = Socket(num_tables=5, value_weight=value_weight)
    values = VALUES.copy()
    values[:, :, 4] *= 100
    cache = method.prepare(np.repeat(KEYS[:, :, :1], 12, axis=2), values, key=KEY)
    indices = method.attend(QUERY, cache, budget=Budget(tokens=1)).indices
    assert (indices == kept).all()  # without norms all scores tie, and the last token wins


def test_slots_outside_a_sequence_score_minus_infinity_whatever_their_norm():
    own, spans, planes = NumpyOperations(), np.array([[2, 5], [0, 12]]), SignHash(3, 4, 4).draw(KEY)
    codes, outside = own.hash_keys(KEYS, spans, planes, None), np.zeros((2, 2, 12), dtype=bool)
    outside[0, :, [0, 1, 7, 8, 9, 10, 11]] = True
    for scores in (
        own.soft_scores(QUERY, codes, spans, planes, "tanh", 0.4),
        own.log_soft_scores(QUERY, codes, spans, planes, "tanh", 0.4),
        own.hard_scores(QUERY, codes, spans, planes),
        NumpyBackend().exact_scores(QUERY, DenseRows(KEYS.copy(), KEYS.copy(), spans, NumpyBackend()), 0.5),
    ):
        np.testing.assert_array_equal(scores == -np.inf, outside)
        weighed = own.weigh_scores(scores, np.zeros((2, 1, 12), dtype=np.float32))
        np.testing.assert_array_equal(weighed, np.where(outside, -np.inf, 0))
