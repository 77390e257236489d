"""Numbers that mean nothing are refused wherever they stand: in one argument, one sequence, one row or one tile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from socket_theory import Budget, Dense, Key, Planes, Santa, Socket, softmax_attention
from socket_theory.bounds.concentration import hoeffding_radius
from socket_theory.bounds.importance import plain_spread
from socket_theory.bounds.ratio import bernstein_ratio_radius, fourth_moment_radius, plug_in_radius
from socket_theory.bounds.residual import ResidualMoments
from socket_theory.bounds.top_k import top_k_error_bound
from socket_theory.core.attention import weighted_state
from socket_theory.core.rng import uniform
from socket_theory.core.selection import select_tokens
from socket_theory.santa.cost import DecodeShape, group_reads
from socket_theory.santa.law import value_covariance
from socket_theory.santa.query import features_read, firing_probabilities, stratified_hits
from socket_theory.santa.samplers import iid_counts, systematic_counts
from socket_theory.santa.tiles import floor_one_budgets, largest_remainder, merge_by_mass
from socket_theory.socket_lsh.bounds.temperature import output_bias_bound, uniform_output_bias_bound
from socket_theory.socket_lsh.law import SoftKernel

KEYS = Key.from_seed(0).generator().standard_normal((2, 2, 8, 4))
TOKEN, TOKENS = KEYS[:, :, :1], KEYS[:, :, :3]
CACHE = Dense().prepare(KEYS, KEYS, kv_start=[2, 0], kv_len=[6, 5])
HALF = CACHE.keys.astype(np.float32)[:, :, :1]


def spoilt(array: np.ndarray, place: tuple[int, ...], number: float = np.nan) -> np.ndarray:
    bad = array.copy()
    bad[place] = number
    return bad


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 2e32])
@pytest.mark.parametrize("name", ["keys", "values"])
def test_no_token_of_a_cache_is_nan_infinite_or_huge(name: str, number: float) -> None:
    for place in ((0, 0, 2, 0), (0, 1, 7, 3), (1, 0, 0, 0), (1, 1, 4, 3)):
        given = {"keys": KEYS, "values": KEYS} | {name: spoilt(KEYS, place, number)}
        with pytest.raises(ValueError, match=f"{name} (contains NaN or infinity|reaches)"):
            Dense().prepare(**given, kv_start=[2, 0], kv_len=[6, 5])
    for sequence in (0, 1):
        for token in (0, 2):
            new = {"keys": TOKENS, "values": TOKENS} | {name: spoilt(TOKENS, (sequence, 1, token, 3), number)}
            with pytest.raises(ValueError, match=f"{name} (contains NaN or infinity|reaches)"):
                CACHE.append(**new)


def test_what_lies_outside_the_spans_is_not_looked_at() -> None:
    bad = spoilt(spoilt(KEYS, (0, 0, 1, 0)), (1, 1, 5, 0))
    again = Dense().prepare(bad, bad, kv_start=[2, 0], kv_len=[6, 5])
    query = KEYS[:, :, 0]
    np.testing.assert_array_equal(Dense().attend(query, again).value, Dense().attend(query, CACHE).value)


@pytest.mark.parametrize("keys", [TOKEN, HALF])
@pytest.mark.parametrize("values", [TOKEN, HALF])
def test_tokens_of_another_dtype_are_not_appended(keys: np.ndarray, values: np.ndarray) -> None:
    if keys.dtype == values.dtype == CACHE.keys.dtype:
        assert CACHE.append(keys, values).kv_len.tolist() == [7, 6]
        return
    with pytest.raises(TypeError, match=f"keys of {keys.dtype} and values of {values.dtype}.*convert them first"):
        CACHE.append(keys, values)


def test_values_of_another_length_or_number_are_not_appended() -> None:
    with pytest.raises(ValueError, match=r"values \(2, 2, 1, 3\) do not fit the cache"):
        CACHE.append(TOKEN, TOKEN[..., :3])
    with pytest.raises(TypeError, match="values has dtype int64"):
        Dense().prepare(KEYS, KEYS.astype(int))
    with pytest.raises(TypeError, match="keys has dtype int64"):
        CACHE.append(TOKEN.astype(int), TOKEN)


@pytest.mark.parametrize(("start", "length"), [([5, 0], [4, 8]), ([0, 5], [8, 4]), ([1, 1], [8, 8]), (7, 2)])
def test_a_sequence_ends_within_its_slots(start: Any, length: Any) -> None:
    with pytest.raises(ValueError, match="kv_start \\+ kv_len at most the slots"):
        Dense().prepare(KEYS, KEYS, kv_start=start, kv_len=length)


@pytest.mark.parametrize("flag", [True, [True, True], np.True_])
def test_a_flag_is_no_start_and_no_length(flag: Any) -> None:
    for given in ({"kv_start": flag}, {"kv_len": flag}):
        with pytest.raises(TypeError, match=r"(kv_start|kv_len)=.* was given: pass integers, one a sequence"):
            Dense().prepare(KEYS, KEYS, **given)
    with pytest.raises(TypeError, match=r"length=.* was given: pass integers, one a sequence"):
        CACHE.truncate(flag)


def test_without_a_length_a_sequence_goes_to_its_last_slot() -> None:
    cache = Dense().prepare(KEYS, KEYS, kv_start=[3, 0])
    assert cache.kv_len.tolist() == [5, 8]
    assert Dense().prepare(KEYS, KEYS, kv_start=[3, 0], kv_len=[5, 8]).kv_len.tolist() == [5, 8]


@pytest.mark.parametrize("length", [[7, 5], [6, 6], 6, [0, 5], [6, 0]])
def test_truncating_stays_within_the_valid_tokens_of_each_sequence(length: Any) -> None:
    with pytest.raises(ValueError, match="pass at least 1 and at most what each holds"):
        CACHE.truncate(length)


@pytest.mark.parametrize("rows", [[2], [0, 2], [-1]])
def test_sequences_that_are_not_there_are_not_taken(rows: list[int]) -> None:
    with pytest.raises(ValueError, match="pass integers from 0 to 1"):
        CACHE.take(rows)


def test_a_center_is_made_of_finite_floats() -> None:
    method, center = Socket(num_tables=2, center_keys=True), np.zeros((2, 2, 4))
    for wrong, error in ((spoilt(center, (1, 0, 0)), ValueError), (center.astype(int), TypeError)):
        with pytest.raises(error, match=r"center (contains NaN|has dtype int64)"):
            method.prepare(KEYS, KEYS, key=Key.from_seed(0), center=wrong)


def test_one_row_without_weight_is_refused_beside_others() -> None:
    logs = np.zeros((2, 8))
    logs[1] = -np.inf
    with pytest.raises(ValueError, match="no token has a positive weight"):
        weighted_state(logs, KEYS[0, 0], "angular")
    with pytest.raises(ValueError, match="the sum of soft"):
        output_bias_bound([[0.5, 0.5], [0.0, 0.0]], [[0.5, 0.5], [0.5, 0.5]], 1.0)


KERNEL = SoftKernel(2, 0.4, "tanh", 8)
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a score among others": (lambda: select_tokens(np.array([0.0, np.nan, 1.0]), Budget(tokens=1)), "contain NaN"),
    "infinite planes": (lambda: Planes(np.array([[[1.0, np.inf]]])), "planes contain NaN or infinity"),
    "a query of NaN": (
        lambda: softmax_attention(spoilt(KEYS[0, 0, 0], (1,)), KEYS[0, 0], KEYS[0, 0]),
        "query contains",
    ),
    "a value of NaN": (lambda: softmax_attention(KEYS[0, 0, 0], KEYS[0, 0], spoilt(KEYS[0, 0], (7, 3))), "values cont"),
    "infinite rows": (lambda: value_covariance(np.ones(2), np.array([[1.0], [np.inf]])), "values contains NaN"),
    "infinite rows of a spread": (lambda: plain_spread(np.ones(2), np.array([[1.0], [np.inf]])), "values contains NaN"),
    "magnitudes": (lambda: firing_probabilities(np.array([1.0, np.nan])), "magnitudes contains NaN"),
    "a uniform of 1": (lambda: iid_counts(np.ones(2), np.array([0.5, 1.0])), r"outside \[0, 1\)"),
    "a uniform below 0": (lambda: stratified_hits(np.ones(2), 3, np.array([-1e-300, 0.0])), r"outside \[0, 1\)"),
    "a uniform of NaN": (lambda: systematic_counts(np.ones(2), 3, np.array([0.5, np.nan])), r"outside \[0, 1\)"),
    "one negative weight": (lambda: iid_counts(np.array([2.0, -1e-3]), np.array([0.5])), "of at least 0 whose sum"),
    "one weight of NaN": (lambda: iid_counts(np.array([2.0, np.nan]), np.array([0.5])), "of at least 0 whose sum"),
    "no mass": (lambda: uniform_output_bias_bound(KERNEL, 1.0, 3, 0.0, 1.0), "mass=0.0"),
    "no mass for the plug-in": (lambda: plug_in_radius(0.1, 9, 1.0, [1.0, 0.0]), "realised_mass="),
    "no mass for Bernstein": (lambda: bernstein_ratio_radius(0.1, 9, 1.0, 1.0, [1.0, 0.0]), "realised_mass="),
    "no mass for four": (lambda: fourth_moment_radius(0.1, 9, ResidualMoments(1, 1, 1), 0.0), "realised_mass=0.0"),
    "an infinite radius": (lambda: hoeffding_radius(0.1, 9, [1.0, np.inf]), "radius="),
    "a captured mass of 1.1": (lambda: top_k_error_bound(1.1, 1.0), "captured_mass=1.1"),
    "inclusion above 1": (lambda: group_reads(np.array([[0.5, 1.1]])), "inclusion of shape"),
    "inclusion below 0": (lambda: group_reads(np.array([[0.5, -0.1]])), "inclusion of shape"),
    "firing above 1": (lambda: features_read(np.array([0.5, 1.1]), 3, "iid"), r"outside \[0, 1\]"),
    "firing below 0": (lambda: features_read(np.array([0.5, -0.1]), 3, "iid"), r"outside \[0, 1\]"),
    "a counter that is no integer": (lambda: uniform(Key.from_seed(0), np.array([np.nan])), "non-negative integers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_number_without_meaning_is_refused_by_name(case: str) -> None:
    call, sentence = REFUSED[case]
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize("total", [0.5, 0.99, 1 - 1e-6, 1 + 1e-6, 1.01, 2.0])
@pytest.mark.parametrize("budgets", [largest_remainder, floor_one_budgets])
def test_masses_add_up_to_one(budgets: Callable[..., Any], total: float) -> None:
    with pytest.raises(ValueError, match=r"masses add up to .*: pass masses that add up to 1"):
        budgets(np.array([0.25, 0.75]) * total, 8)
    assert budgets(np.array([0.25, 0.75]) * (1 + 1e-12), 8).tolist() == [2, 6]


def test_a_flag_is_no_count_and_a_share_is_at_most_one() -> None:
    for make in (lambda: Budget(tokens=True), lambda: largest_remainder(np.ones(1), True), lambda: Santa(True)):
        with pytest.raises(TypeError, match="=True is of type bool: pass an integer"):
            make()
    with pytest.raises(ValueError, match=r"fraction=1.2 was given: pass a share of the tokens in \(0, 1\]"):
        Budget(fraction=1.2)


@pytest.mark.parametrize("heads", [1, 3])
def test_query_heads_are_a_multiple_of_kv_heads(heads: int) -> None:
    with pytest.raises(ValueError, match=f"the query has {heads} heads and keys have 2"):
        Dense().attend(np.ones((2, heads, 4)), CACHE)


def test_a_query_is_made_of_finite_floats() -> None:
    query = KEYS[:, :, 0]
    for sequence in (0, 1):
        with pytest.raises(ValueError, match="query contains NaN or infinity"):
            Dense().attend(spoilt(query, (sequence, 1, 3)), CACHE)
    with pytest.raises(TypeError, match="query has dtype int64"):
        Dense().attend(query.astype(int), CACHE)
    with pytest.raises(ValueError, match="sm_scale reaches"):
        Dense().attend(query, CACHE, sm_scale=1e40)


def test_a_tile_without_budget_or_mass_weighs_nothing() -> None:
    weights = np.array([1.0, 1.0, 0.0, 0.0, 2.0])
    merged = merge_by_mass(np.array([1, 0, 0, 0, 0]), weights, 2, np.array([1, 0, 0]))
    assert merged.tolist() == [0.5, 0, 0, 0, 0]
    with pytest.raises(ValueError, match=r"budgets of shape \(2,\)"):
        merge_by_mass(np.ones(5), weights, 2, np.array([1, 1]))
    with pytest.raises(ValueError, match="pass an integer of at least 0 for each"):
        merge_by_mass(np.ones(5), weights, 2, np.array([1, -1, 1]))
    for counts in (np.ones(4), np.ones(6)):
        with pytest.raises(ValueError, match="were given for 5 weights: pass one for each"):
            merge_by_mass(counts, weights, 2, np.array([1, 1, 1]))


@pytest.mark.parametrize("given", [{"rows": 101}, {"rows": -1}, {"rows": 5, "key_share": 1.1}, {"rows": np.nan}])
def test_a_step_reads_no_more_than_there_is(given: dict[str, float]) -> None:
    shape = DecodeShape(kv_len=100, num_qo_heads=4, num_kv_heads=2, head_dim=8)
    assert shape.sampled(100) == shape.dense()
    with pytest.raises(ValueError, match=r"(rows|key_share)=.* was given: pass"):
        shape.sampled(**given)
