"""A query of T tokens is T steps over the cache without the tokens behind each, on every backend."""

import numpy as np
import pytest

from socket_theory import Budget
from socket_theory.testing import assert_close

RANGES = {"all valid": {}, "ragged": {"kv_start": [0, 3, 6], "kv_len": [60, 41, 12]}}


def several(backend, tokens, **shape):
    """A query [B, Hq, T, D], keys and values."""
    one, keys, values = backend.arrays(**shape)
    draw = backend.key.fold_in("queries").generator()
    return 2 * draw.standard_normal((*one.shape[:2], tokens, one.shape[2])).astype(one.dtype), keys, values


@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("ranges", RANGES.values(), ids=RANGES)
def test_several_tokens_are_single_steps_over_truncated_caches(backend, keeping, tokens, ranges):
    query, keys, values = several(backend, tokens)
    cache = backend.prepare(keeping, keys, values, **ranges)
    got = backend.attend(keeping, query, cache)
    assert got.value.shape == (3, 6, tokens, 16)
    total = 0
    for token in range(tokens):
        seen = cache.truncate(backend.get(cache.kv_len) - (tokens - 1 - token))
        single = backend.attend(keeping, query[:, :, token], seen, key=backend.key.fold_in("token", token))
        np.testing.assert_array_equal(backend.get(got.value)[:, :, token], backend.get(single.value))
        np.testing.assert_array_equal(backend.get(got.lse)[:, :, token], backend.get(single.lse))
        used, alone = backend.get(got.indices)[:, :, token], backend.get(single.indices)
        np.testing.assert_array_equal(used[..., : alone.shape[-1]], alone)
        assert (used[..., alone.shape[-1] :] == -1).all()
        for name in ("kept", "density"):
            np.testing.assert_array_equal(getattr(got.stats, name)[..., token], getattr(single.stats, name))
        for name in ("nominal_bits", "bits_per_token"):
            assert getattr(got.stats, name) == getattr(single.stats, name)
        assert (got.stats.captured_mass is None) == (single.stats.captured_mass is None)
        if single.stats.captured_mass is not None:
            np.testing.assert_array_equal(got.stats.captured_mass[..., token], single.stats.captured_mass)
        total = total + single.stats.bytes
        assert got.kind == single.kind
    np.testing.assert_array_equal(got.stats.bytes, total)


def test_several_tokens_keep_batch_axes_and_dtype(backend, keeping):
    query, keys, values = several(backend, 3, batch=4)
    flat = backend.attend(keeping, query, backend.prepare(keeping, keys, values), out_dtype="float64")
    shaped = [array.reshape(2, 2, *array.shape[1:]) for array in (query, keys, values)]
    got = backend.attend(keeping, shaped[0], backend.prepare(keeping, *shaped[1:]), out_dtype="float64")
    assert got.value.shape == (2, 2, 6, 3, 16)
    assert got.lse.shape == got.stats.kept.shape == (2, 2, 6, 3)
    assert backend.get(got.value).dtype == np.float64
    np.testing.assert_array_equal(backend.get(got.value).reshape(flat.value.shape), backend.get(flat.value))


def test_a_shared_group_keeps_one_set_for_every_token(backend, selector):
    query, keys, values = several(backend, 3)
    budget = Budget(tokens=9, per="kv_head")
    used = backend.get(backend.attend(selector, query, backend.prepare(selector, keys, values), budget=budget).indices)
    grouped = used.reshape(3, 2, 3, 3, -1)
    assert (grouped == grouped[:, :, :1]).all()


def test_several_tokens_without_a_budget_are_causal_attention(backend, selector):
    query, keys, values = several(backend, 5, dtype="float64")
    got = backend.attend(selector, query, backend.prepare(selector, keys, values), budget=None)
    logits = np.einsum("bhtd,bhnd->bhtn", query, keys.repeat(3, axis=1)) / 4
    logits = np.where(np.arange(60) <= 55 + np.arange(5)[:, None], logits, -np.inf)
    weights = np.exp(logits)
    assert_close(backend.get(got.lse), np.log(weights.sum(-1)), "float64")
    assert_close(backend.get(got.value), weights / weights.sum(-1, keepdims=True) @ values.repeat(3, axis=1), "float64")


def test_more_tokens_than_a_sequence_has_are_refused(backend, method):
    query, keys, values = several(backend, 5)
    cache = backend.prepare(method, keys, values, kv_len=[60, 4, 9])
    with pytest.raises(ValueError, match=r"^a query of 5 tokens was given and a sequence of the cache has 4: append "):
        backend.attend(method, query, cache)


def test_sums_of_tokens_answer_the_newest_alone(backend, summing):
    query, keys, values = several(backend, 3)
    cache = backend.prepare(summing, keys, values, **RANGES["ragged"])
    one = backend.attend(summing, query[:, :, :1], cache)
    assert one.value.shape == (3, 6, 1, 16)
    np.testing.assert_array_equal(
        backend.get(one.value)[:, :, 0], backend.get(backend.attend(summing, query[:, :, 0], cache).value)
    )
    with pytest.raises(ValueError, match=r"^a query of 3 tokens was given and .* keeps sums over tokens"):
        backend.attend(summing, query, cache)
