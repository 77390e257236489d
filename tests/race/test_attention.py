"""RACE attention of whole sequences against the definition written out over all pairs, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_theory import Key, Planes, SignHash, race_attention, race_per_bucket_attention, sharpened_angular_attention
from socket_theory.core.checks import bfloat16
from socket_theory.testing import assert_close

KEY = Key.from_seed(41)


def bit_share(vector, plane, beta):
    return 1 / (1 + np.exp(-2 * beta * np.tanh(plane @ vector)))


def weight(query, key, planes, beta):
    """w-bar, bit by bit: both fall on the plane's one side, or both on the other."""
    total = 0.0
    for table in planes:
        both = 1.0
        for plane in table:
            asked, held = bit_share(query, plane, beta), bit_share(key, plane, beta)
            both *= asked * held + (1 - asked) * (1 - held)
        total += both / len(planes)
    return total


def by_pairs(query, keys, values, planes, beta, causal, start, length):
    """Value and lse [B, Hq, T, *], pair by pair."""
    batch, heads, tokens, _ = query.shape
    group, first = heads // keys.shape[1], keys.shape[2] - tokens
    value, lse = np.zeros((batch, heads, tokens, values.shape[-1])), np.full((batch, heads, tokens), -np.inf)
    for row, head, token in np.ndindex(batch, heads, tokens):
        end = start[row] + length[row]
        slot = first + token
        if causal and not start[row] <= slot < end:
            continue
        seen = range(start[row], min(end, slot + 1) if causal else end)
        mine = keys[row, head // group], values[row, head // group]
        weights = np.array([weight(query[row, head, token], mine[0][j], planes.weights, beta) for j in seen])
        value[row, head, token] = weights @ mine[1][list(seen)] / weights.sum()
        lse[row, head, token] = np.log(weights.sum())
    return value, lse


def inputs(batch=(2,), heads=(4, 2), tokens=7, slots=9, dim=6, length=3, seed=0):
    draw = KEY.fold_in("inputs", seed).generator()
    query = draw.standard_normal((*batch, heads[0], tokens, dim))
    keys = draw.standard_normal((*batch, heads[1], slots, dim))
    return query, keys, draw.standard_normal((*batch, heads[1], slots, length))


def planes_of(tables=3, planes=2, dim=6):
    return SignHash(tables, planes, dim).draw(KEY)


def require_state(state, expected):
    value, lse = expected
    hidden = np.isneginf(lse)
    np.testing.assert_array_equal(np.isneginf(state.lse), hidden)
    assert (state.value[hidden] == 0).all()
    assert_close(state.value[~hidden], value[~hidden], "float64")
    assert_close(state.lse[~hidden], lse[~hidden], "float64")
    assert state.kind == "angular"


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 256])
@pytest.mark.parametrize(("start", "length"), [([0, 0], [9, 9]), ([0, 4], [6, 5]), ([8, 3], [1, 2])], ids=str)
def test_it_is_the_definition_over_all_pairs(causal, chunk, start, length):
    query, keys, values = inputs()
    planes = planes_of()
    expected = by_pairs(query, keys, values, planes, 1.7, causal, start, length)
    for row, (first, count) in enumerate(zip(start, length, strict=True)):
        for array in (keys, values):
            array[row, :, :first] = array[row, :, first + count :] = np.nan
        slots = 2 + np.arange(7)
        if causal:
            query[row, :, (slots < first) | (slots >= first + count)] = np.nan
    given = {"kv_start": start, "kv_len": length, "chunk": chunk}
    require_state(race_attention(query, keys, values, planes, 1.7, causal, **given), expected)


@given(
    slots=st.integers(1, 40),
    missing=st.integers(0, 39),
    chunk=st.integers(1, 50),
    tables=st.integers(1, 4),
    planes=st.integers(1, 4),
    beta=st.floats(1e-3, 20),
    causal=st.booleans(),
    group=st.integers(1, 3),
)
def test_a_chunk_size_changes_roundings_only(slots, missing, chunk, tables, planes, beta, causal, group):
    query, keys, values = inputs((), (2 * group, 2), max(1, slots - missing), slots)
    drawn = planes_of(tables, planes)
    whole = race_attention(query, keys, values, drawn, beta, causal, chunk=10**6)
    parts = race_attention(query, keys, values, drawn, beta, causal, chunk=chunk)
    assert_close(parts.value, whole.value, "float64")
    assert_close(parts.lse, whole.lse, "float64")
    low, high = values.min(axis=(-2)), values.max(axis=(-2))
    for bound, sign in ((low, 1), (high, -1)):
        assert (sign * (parts.value - np.repeat(bound, group, axis=0)[:, None]) >= -1e-12).all()


@given(dim=st.integers(1, 9), length=st.integers(1, 9), shape=st.lists(st.integers(1, 3), max_size=3))
def test_batch_axes_are_only_shape(dim, length, shape):
    query, keys, values = inputs(tuple(shape), dim=dim, length=length)
    state = race_attention(query, keys, values, planes_of(dim=dim), 1.0, True)
    assert state.value.shape == (*shape, 4, 7, length)
    assert state.lse.shape == (*shape, 4, 7)
    for place in np.ndindex(*shape):
        alone = race_attention(query[place], keys[place], values[place], planes_of(dim=dim), 1.0, True)
        np.testing.assert_allclose(state.value[place], alone.value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("chunk", [4, 256])
def test_causal_rows_keep_their_bits_when_later_tokens_change(chunk):
    query, keys, values = inputs(tokens=9)
    before = race_attention(query, keys, values, planes_of(), 2.0, True, chunk=chunk)
    for array in (query, keys, values):
        array[:, :, 6:] *= -3
    after = race_attention(query, keys, values, planes_of(), 2.0, True, chunk=chunk)
    np.testing.assert_array_equal(after.value[:, :, :6], before.value[:, :, :6])
    np.testing.assert_array_equal(after.lse[:, :, :6], before.lse[:, :, :6])
    assert (after.value[:, :, 6:] != before.value[:, :, 6:]).all()


def test_equal_values_come_back():
    query, keys, values = inputs()
    values[...] = 0.3
    for causal in (False, True):
        value = race_attention(query, keys, values, planes_of(), 3.0, causal).value
        np.testing.assert_allclose(value, 0.3, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_few_bits_are_only_storage(dtype):
    dtype = bfloat16() if dtype == "bfloat16" else dtype
    narrow = [array.astype(dtype) for array in inputs()]
    wide = [array.astype(np.float64) for array in narrow]
    for function, last in ((race_attention, (planes_of(), 1.5)), (sharpened_angular_attention, (2.5,))):
        for causal in (False, True):
            found, expected = (function(*given, *last, causal) for given in (narrow, wide))
            assert found.value.dtype == np.float64
            np.testing.assert_array_equal(found.value, expected.value)
            np.testing.assert_array_equal(found.lse, expected.lse)
            found, expected = (race_per_bucket_attention(*given, planes_of(), 1.5, causal) for given in (narrow, wide))
            np.testing.assert_array_equal(found, expected)


def test_the_largest_inputs_and_the_steepest_beta_stay_finite():
    query, keys, values = (1e32 * np.sign(array) for array in inputs())
    for beta, planes in ((1e-30, planes_of()), (20.0, planes_of(3, 4))):
        state = race_attention(query, keys, values / 1e2, planes, beta, True)
        assert np.isfinite(state.value).all()
        assert np.isfinite(state.lse).all()


QUERY, KEYS, VALUES = inputs()
FINE = {"query": QUERY, "keys": KEYS, "values": VALUES}


def changed(array, place, number):
    copy = array.copy()
    copy[place] = number
    return copy


REFUSED = [
    ({"query": QUERY.tolist()}, TypeError, "query is of type list: pass a NumPy array"),
    ({"keys": KEYS.astype(int)}, TypeError, "keys has dtype int64: pass one of float16"),
    ({"values": np.ma.masked_array(VALUES)}, TypeError, "values is a masked array"),
    ({"query": QUERY[:, :3]}, ValueError, "the query has 3 heads and keys have 2: pass a positive multiple"),
    ({"query": QUERY[..., 1:]}, ValueError, r"query of shape \(2, 4, 7, 5\) was given: pass \(2, 'num_qo_heads', 't"),
    ({"query": QUERY[:, :, :0]}, ValueError, r"query of shape \(2, 4, 0, 6\) was given: pass"),
    ({"query": QUERY[0]}, ValueError, r"query of shape \(4, 7, 6\) was given: pass"),
    ({"values": VALUES[:, :, 1:]}, ValueError, r"keys \(2, 2, 9, 6\) and values \(2, 2, 8, 3\) were given"),
    (
        {"keys": KEYS[:, :, :0], "values": VALUES[:, :, :0]},
        ValueError,
        r"keys \(2, 2, 0, 6\) and values \(2, 2, 0, 3\) are empty: pass a",
    ),
    ({"keys": KEYS[:, :, :5], "values": VALUES[:, :, :5]}, ValueError, "7 query tokens and 5 slots were given: pass"),
    ({"query": changed(QUERY, (0, 1, 2, 3), np.nan)}, ValueError, "query contains NaN or infinity"),
    ({"keys": changed(KEYS, (0, 1, 2, 3), np.inf)}, ValueError, "keys contains NaN or infinity"),
    ({"values": changed(VALUES, (1, 1, 8, 0), np.nan)}, ValueError, "values contains NaN or infinity"),
    ({"kv_len": 10}, ValueError, r"kv_start=\[0, 0\] and kv_len=\[10, 10\] were given for 9 slots"),
    ({"kv_len": [0, 9]}, ValueError, r"kv_start=\[0, 0\] and kv_len=\[0, 9\] were given"),
    ({"causal": 1}, TypeError, "causal=1 is of type int: pass True or False"),
]
LAW = [
    ({"planes": planes_of().weights}, TypeError, "planes is of type ndarray: pass Planes"),
    ({"planes": planes_of(dim=5)}, ValueError, "planes for vectors of length 5 were given: pass planes for 6"),
    (
        {"planes": Planes(np.ones((300, 4, 6)))},
        ValueError,
        r"num_planes=4 and num_tables=300 were given, 4800 features: pass num_tables \* 2\*\*num_planes of at most",
    ),
    ({"beta": 0.0}, ValueError, "beta=0.0 was given: pass a finite number above 0"),
    ({"beta": -1.0}, ValueError, "beta=-1.0 was given: pass a finite number above 0"),
    ({"beta": float("nan")}, ValueError, "beta=nan was given: pass a finite number above 0"),
    ({"beta": "1"}, TypeError, "beta='1' is of type str: pass a number"),
    ({"beta": 41.0}, ValueError, "beta=41.0 was given with num_planes=2: pass at most 40"),
]


@pytest.mark.parametrize(("given", "error", "sentence"), REFUSED + LAW)
@pytest.mark.parametrize("function", [race_attention, race_per_bucket_attention])
def test_what_does_not_fit_is_refused_in_a_sentence(function, given, error, sentence):
    with pytest.raises(error, match=f"^{sentence}"):
        function(**{**FINE, "planes": planes_of(), "beta": 1.0, "causal": True} | given)


@pytest.mark.parametrize(("given", "error", "sentence"), REFUSED)
def test_what_does_not_fit_a_target_is_refused_in_a_sentence(given, error, sentence):
    with pytest.raises(error, match=f"^{sentence}"):
        sharpened_angular_attention(**{**FINE, "gamma": 3.0, "causal": True} | given)


def test_a_chunk_is_a_count():
    with pytest.raises(ValueError, match=r"^chunk=0 was given: pass an integer of at least 1"):
        race_attention(**FINE, planes=planes_of(), beta=1.0, chunk=0)


def test_more_queries_than_keys_are_answered_when_none_is_hidden():
    query, keys, values = inputs(tokens=12, slots=1)
    state = race_attention(query, keys, values, planes_of(), 1.0)
    np.testing.assert_allclose(state.value, np.repeat(values, 2, axis=1) * np.ones((1, 1, 12, 1)), rtol=1e-14)


def test_queries_are_not_hidden_by_padding_unless_causal():
    query, keys, values = inputs()
    padded = changed(keys, np.s_[:, :, :3], np.nan)
    state = race_attention(query, padded, values, planes_of(), 1.0, kv_start=3)
    assert_close(
        state.value, race_attention(query, keys[:, :, 3:], values[:, :, 3:], planes_of(), 1.0).value, "float64"
    )
