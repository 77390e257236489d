"""Prefill answers every token causally, and leaves the cache that prepare makes, on every backend.

A method that keeps rows gives causal softmax attention, one that keeps sums what its steps give.
"""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from socket_theory import Dense
from socket_theory.testing import assert_close

SLOTS = 40
RANGES = {
    "all valid": ([0, 0, 0], [SLOTS] * 3),
    "ragged": ([0, 5, 9], [SLOTS, 20, 1]),
}


def prompt(backend, slots=SLOTS, dtype="float32"):
    """Queries, keys and values of every token."""
    _, keys, values = backend.arrays(slots=slots, dtype=dtype)
    query = 2 * backend.key.fold_in("prompt").generator().standard_normal((3, 6, slots, 16))
    return query.astype(dtype), keys, values


def causal_softmax(query, keys, values, start, length, sm_scale=0.25):
    """Value and lse of every token by a masked softmax over the whole matrix, in float64; 0 and -inf for padding."""
    batch, heads, slots, _ = query.shape
    value, lse = np.zeros((batch, heads, slots, values.shape[-1])), np.full((batch, heads, slots), -np.inf)
    for row, head in np.ndindex(batch, heads):
        valid = slice(start[row], start[row] + length[row])
        asked, seen, weighed = (
            array.astype(float)[valid] for array in (query[row, head], keys[row, head // 3], values[row, head // 3])
        )
        weights = np.exp(sm_scale * asked @ seen.T) * np.tri(length[row])
        value[row, head, valid] = weights @ weighed / weights.sum(-1, keepdims=True)
        lse[row, head, valid] = np.log(weights.sum(-1))
    return value, lse


def single_steps(backend, cache, query, keys, values, start, length):
    """As causal_softmax, by a step for every token over what is prepared of the tokens up to it."""
    method, (batch, heads, slots, _) = cache.method, query.shape
    value, lse = np.zeros((batch, heads, slots, values.shape[-1])), np.full((batch, heads, slots), -np.inf)
    for row in range(batch):
        for slot in range(start[row], start[row] + length[row]):
            seen = slice(start[row], slot + 1)
            upto = backend.prepare(method, keys[row, :, seen], values[row, :, seen], sample=cache.sample)
            step = method.attend(backend.put(query[row, :, slot]), upto, out_dtype="float64")
            value[row, :, slot], lse[row, :, slot] = backend.get(step.value), backend.get(step.lse)
    return value, lse


def expected_of(backend, cache, query, keys, values, start, length, **scale):
    """Value and lse of every token, by the method of `cache`; 0 and -inf for padding."""
    given = query, keys, values, start, length
    return causal_softmax(*given, **scale) if cache.method.keeps_rows else single_steps(backend, cache, *given)


def prefill(backend, method, query, keys, values, **options):
    if "cache" not in options:
        options = backend.drawn_from(method, **options)
    return method.prefill(*(backend.put(array) for array in (query, keys, values)), **options)


def require_outputs(backend, value, lse, expected, dtype):
    """Value and lse of valid tokens within tolerance, exactly 0 and -inf of the others."""
    valid = np.isfinite(expected[1])
    np.testing.assert_array_equal(np.isfinite(lse), valid)
    assert (lse[~valid] == -np.inf).all()
    assert (value[~valid] == 0).all()
    assert_close(value[valid], expected[0][valid], dtype)
    assert_close(lse[valid], expected[1][valid], dtype)


@pytest.mark.parametrize("ranges", RANGES.values(), ids=RANGES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_outputs_are_causal_whatever_the_padding_holds(backend, method, ranges, dtype):
    query, keys, values = prompt(backend, dtype=dtype)
    for row, (start, length) in enumerate(zip(*ranges, strict=True)):
        for array in (query, keys, values):
            array[row, :, :start] = array[row, :, start + length :] = np.nan
    made = prefill(backend, method, query, keys, values, kv_start=ranges[0], kv_len=ranges[1])
    expected = expected_of(backend, made.cache, query, keys, values, *ranges)
    assert backend.get(made.value).dtype == dtype
    require_outputs(backend, backend.get(made.value), backend.get(made.lse), expected, dtype)
    assert made.carry is None
    assert made.frozen == ()


@pytest.mark.parametrize("ranges", RANGES.values(), ids=RANGES)
def test_the_cache_is_that_of_prepare(backend, method, ranges):
    query, keys, values = prompt(backend)
    options = {"kv_start": ranges[0], "kv_len": ranges[1], "capacity": 50}
    made = prefill(backend, method, query, keys, values, **options)
    direct = backend.prepare(method, keys, values, **options)
    assert made.cache.capacity == direct.capacity
    asked = query[:, :, 0]
    backend.equal(backend.attend(method, asked, made.cache), backend.attend(method, asked, direct))


@pytest.mark.parametrize("cuts", [(17,), (1, 30), (39,)], ids=str)
@pytest.mark.parametrize("first", [[0, 0, 0], [0, 5, 0]], ids=str)
def test_chunks_are_the_whole(backend, method, cuts, first):
    query, keys, values = prompt(backend, dtype="float64")
    first = np.minimum(first, cuts[0] - 1)
    borders, outputs, cache = (0, *cuts, SLOTS), [], None
    for begin, end in pairwise(borders):
        options = {"kv_start": first} if cache is None else {"cache": cache}
        made = prefill(backend, method, *(array[:, :, begin:end] for array in (query, keys, values)), **options)
        assert made.frozen == (() if cache is None else tuple(method.freezes(2, 16)))
        outputs.append((backend.get(made.value), backend.get(made.lse)))
        cache = made.cache
    value, lse = (np.concatenate([chunk[part] for chunk in outputs], axis=2) for part in range(2))
    expected = expected_of(backend, cache, query, keys, values, first, SLOTS - first)
    require_outputs(backend, value, lse, expected, "float64")
    known = {"kv_start": first} | dict(cache.index.frozen)
    known |= {} if cache.sample is None else {"sample": cache.sample}
    whole = prefill(backend, method, query, keys, values, **known)
    require_outputs(backend, value, lse, (backend.get(whole.value), backend.get(whole.lse)), "float64")
    for direct in (whole.cache, backend.prepare(method, keys, values, **known)):
        asked = query[:, :, 0]
        # A sum has the roundings of its order.
        alike = backend.equal if method.keeps_rows else partial(backend.same, dtype="float64")
        alike(backend.attend(method, asked, cache), backend.attend(method, asked, direct))


def test_a_chunk_goes_behind_the_valid_tokens_of_each_sequence(backend, method):
    query, keys, values = prompt(backend, dtype="float64")
    lengths = np.array([30, 12, 7])
    start = prefill(backend, method, *(a[:, :, :30] for a in (query, keys, values)), kv_len=lengths)
    made = prefill(backend, method, *(a[:, :, 30:] for a in (query, keys, values)), cache=start.cache)
    for row, length in enumerate(lengths):
        order = [*range(length), *range(30, SLOTS)]
        parts = [array[row : row + 1, :, order] for array in (query, keys, values)]
        value, lse = expected_of(backend, made.cache, *parts, [0], [len(order)])
        assert_close(backend.get(made.value)[row], value[0, :, length:], "float64")
        assert_close(backend.get(made.lse)[row], lse[0, :, length:], "float64")


def test_batch_axes_scale_and_dtype_are_those_of_attend(backend, method):
    query, keys, values = prompt(backend)
    scale = {"sm_scale": 0.6} if method.keeps_rows else {}
    flat, shaped, single = (
        prefill(backend, method, *(array[rows] for array in (query, keys, values)), **scale, out_dtype="float64")
        for rows in (slice(None), slice(1), 0)
    )
    assert backend.get(flat.value).dtype == np.float64
    expected = expected_of(backend, flat.cache, query, keys, values, [0] * 3, [SLOTS] * 3, **scale)
    require_outputs(backend, backend.get(flat.value), backend.get(flat.lse), expected, "float32")
    assert single.value.shape == (6, SLOTS, 16)
    assert single.lse.shape == (6, SLOTS)
    np.testing.assert_array_equal(backend.get(single.value), backend.get(shaped.value)[0])


@pytest.mark.parametrize("slots", [255, 257, 2049])
def test_blocks_are_the_whole(backend, slots):
    query, keys, values = prompt(backend, slots, dtype="float64")
    made = prefill(backend, Dense(), query, keys, values)
    expected = causal_softmax(query, keys, values, [0] * 3, [slots] * 3)
    require_outputs(backend, backend.get(made.value), backend.get(made.lse), expected, "float64")


def test_queries_that_do_not_fit_are_refused(backend, method):
    query, keys, values = prompt(backend)
    for wrong in (query[:, :, 1:], query[..., 1:], query[:, :, 0], query[:2]):
        with pytest.raises(ValueError, match=r"^query of shape .* was given: pass \(3, 'num_qo_heads', 40, 16\)\.$"):
            prefill(backend, method, wrong, keys, values)
    with pytest.raises(ValueError, match=r"^the query has 5 heads and keys have 2: pass"):
        prefill(backend, method, query[:, :5], keys, values)
    query[1, 2, 3, 4] = np.nan
    with pytest.raises(ValueError, match=r"^query contains NaN or infinity"):
        prefill(backend, method, query, keys, values)
