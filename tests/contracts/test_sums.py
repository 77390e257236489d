"""A method of your own that keeps sums over tokens and no rows."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

from socket_theory import Budget, Key, load_cache, save_cache
from socket_theory.core.estimate import Outcome
from socket_theory.core.index import SumIndex
from socket_theory.core.method import Method
from socket_theory.testing import assert_close

KEY = Key.from_seed(12)
QUERY, KEYS, VALUES = (KEY.generator().standard_normal(shape) for shape in ((2, 4, 16), (2, 2, 40, 16), (2, 2, 40, 16)))
SPANS = {"kv_start": [3, 0], "kv_len": [30, 40]}
BUDGET = Budget(tokens=7)


@dataclass(frozen=True)
class LinearAttention(Method):
    """Attention by <phi(q), phi(k)> with phi = elu + 1: sums over tokens are all that a step reads."""

    takes = frozenset()
    keeps_rows = False

    def index(self, rows, sample, frozen):
        kv, total = (
            np.zeros((*rows.shape[:2], rows.shape[3], rows.value_dim)),
            np.zeros((*rows.shape[:2], rows.shape[3])),
        )
        for row, head in np.ndindex(rows.shape[:2]):
            start, length = rows.kv_range[row]
            keys, values = (array.astype(float) for array in rows.read(row, head, slice(start, start + length)))
            kv[row, head], total[row, head] = feature(keys).T @ values, feature(keys).sum(0)
        return SumIndex({"kv": kv, "total": total})

    def step(self, step):
        kv, total = (np.repeat(step.index.arrays[name], 2, axis=1) for name in ("kv", "total"))
        asked = feature(step.query.astype(float))
        weight = (asked * total).sum(-1)
        value = (asked[:, :, None] @ kv)[:, :, 0] / weight[..., None]
        return Outcome(value, np.log(weight), step.everything(), "angular")


def feature(rows):
    return np.where(rows > 0, rows + 1, np.exp(np.minimum(rows, 0)))


def linear(query, keys, values, start, length):
    """What LinearAttention estimates, token by token."""
    value = np.zeros((*query.shape[:2], values.shape[-1]))
    for row, head in np.ndindex(query.shape[:2]):
        valid = slice(start[row], start[row] + length[row])
        weights = feature(keys[row, head // 2, valid]) @ feature(query[row, head])
        value[row, head] = weights @ values[row, head // 2, valid] / weights.sum()
    return value


def test_a_method_without_rows_keeps_sums_alone():
    cache = LinearAttention().prepare(KEYS, VALUES, **SPANS)
    estimate = LinearAttention().attend(QUERY, cache)
    assert_close(estimate.value, linear(QUERY, KEYS, VALUES, *SPANS.values()), "float64")
    assert cache.nbytes == cache.index.nbytes == 2 * 2 * 16 * 17 * 8
    assert estimate.stats.bytes.tolist() == [2 * 16 * 17 * 8] * 2
    assert estimate.stats.bits_per_token == 0


def test_sums_of_appended_tokens_are_those_of_prepare():
    method = LinearAttention()
    whole = method.prepare(KEYS, VALUES)
    for cuts in ((1, 40), (20, 21, 40)):
        cache = method.prepare(KEYS[:, :, : cuts[0]], VALUES[:, :, : cuts[0]], capacity=50)
        for begin, end in pairwise(cuts):
            cache = cache.append(KEYS[:, :, begin:end], VALUES[:, :, begin:end])
        assert cache.kv_len.tolist() == [40, 40]
        direct, grown = (method.attend(QUERY, made) for made in (whole, cache))
        assert_close(grown.value, direct.value, "float64")
        assert_close(grown.lse, direct.lse, "float64")
        np.testing.assert_array_equal(grown.indices, direct.indices)


def test_sequences_of_sums_are_taken():
    method = LinearAttention()
    cache = method.prepare(KEYS, VALUES, **SPANS)
    taken = method.attend(QUERY[[1, 0, 1]], cache.take([1, 0, 1]))
    np.testing.assert_array_equal(taken.value, method.attend(QUERY, cache).value[[1, 0, 1]])


def test_no_token_is_taken_away_from_sums():
    method = LinearAttention()
    cache = method.prepare(KEYS, VALUES, **SPANS)
    sentence = "^the index holds sums over tokens, from which none can be taken away: keep the cache from before"
    with pytest.raises(ValueError, match=sentence):
        cache.truncate(7)
    with pytest.raises(ValueError, match=r"^a query of 2 tokens was given and LinearAttention keeps sums over tokens"):
        method.attend(np.stack([QUERY, QUERY], axis=2), cache)
    one = method.attend(QUERY[:, :, None], cache)
    np.testing.assert_array_equal(one.value[:, :, 0], method.attend(QUERY, cache).value)


def test_saved_sums_are_loaded_with_their_method(tmp_path):
    method = LinearAttention()
    cache = method.prepare(KEYS, VALUES, **SPANS)
    save_cache(cache, tmp_path / "cache.npz")
    again = load_cache(tmp_path / "cache.npz", method=method)
    for left, right in ((again, cache), *((made.append(KEYS, VALUES) for made in (again, cache)),)):
        got, expected = (method.attend(QUERY, made) for made in (left, right))
        np.testing.assert_array_equal(got.value, expected.value)
        np.testing.assert_array_equal(got.indices, expected.indices)
        assert left.nbytes == right.nbytes


def test_a_prefill_of_a_method_without_rows_needs_one_of_its_own():
    with pytest.raises(NotImplementedError, match=r"^LinearAttention keeps no rows to attend to: it must define ca"):
        LinearAttention().prefill(np.repeat(KEYS, 2, axis=1), KEYS, VALUES)


def test_a_method_that_takes_nothing_refuses_every_argument():
    cache = LinearAttention().prepare(KEYS, VALUES)
    for name, given in (("budget", BUDGET), ("sm_scale", 0.5), ("key", KEY), ("carry", 1)):
        with pytest.raises(TypeError, match=f"^LinearAttention does not use {name}, and {name}="):
            LinearAttention().attend(QUERY, cache, **{name: given})
