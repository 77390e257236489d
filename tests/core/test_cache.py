"""A cache is a value: nothing outside changes it, and a saved one is the same one."""

import dataclasses

import numpy as np
import pytest

from socket_theory import (
    Budget,
    Dense,
    HardLSH,
    Key,
    OracleTopK,
    Planes,
    Race,
    SignHash,
    Socket,
    SocketSampling,
    load_cache,
    save_cache,
)
from socket_theory.core.backend import operations

KEY = Key.from_seed(5)
KEYS, VALUES = KEY.generator().standard_normal((2, 2, 2, 30, 8))
QUERY = KEY.generator().standard_normal((2, 4, 8))
BUDGET = Budget(tokens=9)


def test_the_callers_arrays_can_be_changed_afterwards():
    keys, values, weights = KEYS.copy(), VALUES.copy(), SignHash(5, 10, 8).draw(KEY).weights.copy()
    method = Socket(num_tables=5)
    cache = method.prepare(keys, values, sample=Planes(weights))
    before = method.attend(QUERY, cache, budget=BUDGET)
    for array in (keys, values, weights):
        array *= -1
    after = method.attend(QUERY, cache, budget=BUDGET)
    np.testing.assert_array_equal(before.value, after.value)


def test_what_a_cache_hands_out_cannot_change_it():
    cache = Dense().prepare(KEYS, VALUES)
    for array in (cache.keys, cache.truncate(3).values, cache.append(KEYS, VALUES).keys, cache.kv_len, cache.kv_range):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7


@pytest.mark.parametrize("order", ["F", "C"])
def test_memory_order_changes_nothing(order):
    method = Socket(num_tables=5, value_weight=True, center_keys=True)
    cache = method.prepare(np.array(KEYS, order=order), np.array(VALUES, order=order), key=KEY)
    plain = method.prepare(KEYS, VALUES, key=KEY)
    np.testing.assert_array_equal(cache.index.frozen["center"], plain.index.frozen["center"])
    for name, array in plain.index.arrays.items():
        np.testing.assert_array_equal(cache.index.arrays[name], array)


def test_capacity_counts_the_slots_before_the_start():
    cache = Dense().prepare(KEYS, VALUES, kv_start=[10, 0], kv_len=[20, 5], capacity=31)
    assert cache.append(KEYS[:, :, :1], VALUES[:, :, :1]).kv_len.tolist() == [21, 6]
    with pytest.raises(ValueError, match="exceeds capacity=31"):
        cache.append(KEYS[:, :, :2], VALUES[:, :, :2])


@pytest.mark.parametrize("which", ["keys", "values"])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: np.where(np.arange(8) == 5, np.nan, rows), "contains NaN or infinity"),
        (lambda rows: np.where(np.arange(8) == 5, -np.inf, rows), "contains NaN or infinity"),
        (lambda rows: rows * 1e33, "in magnitude: rescale it"),
        (lambda rows: rows.astype(np.float32), "convert them first"),
        (lambda rows: np.round(rows).astype(np.int64), "pass one of float16"),
        (lambda rows: rows[..., :4], "do not fit the cache"),
        (lambda rows: rows[:, :1], "pass"),
    ],
)
def test_an_append_of_another_kind_is_refused_whichever_of_both_arrays_it_is(which, change, sentence):
    cache = Socket(num_tables=5).prepare(KEYS, VALUES, key=KEY, capacity=40)
    rows = {"keys": KEYS[:, :, :3], "values": VALUES[:, :, :3]}
    rows[which] = change(rows[which])
    with pytest.raises((TypeError, ValueError), match=sentence):
        cache.append(**rows)


def test_truncating_goes_from_one_token_to_all_of_them():
    cache = Dense().prepare(KEYS, VALUES, kv_start=[2, 0], kv_len=[28, 7])
    assert cache.truncate(cache.kv_len).kv_len.tolist() == [28, 7]
    assert cache.truncate(1).kv_len.tolist() == [1, 1]


def test_truncating_keeps_the_start_and_taking_does_not_count_from_the_end():
    cache = Dense().prepare(KEYS, VALUES, kv_start=[2, 1], kv_len=[28, 7])
    assert cache.truncate([5, 6]).kv_range.tolist() == [[2, 5], [1, 6]]
    for rows in ([-1, 0], [0, 2]):
        with pytest.raises(ValueError, match="pass integers from 0 to 1"):
            cache.take(rows)


@pytest.mark.parametrize(("start", "length"), [(5, 26), ([0, 25], [30, 6]), (30, 1), (-1, 3), (0, 0), (0, 31)])
def test_valid_tokens_beyond_the_slots_are_refused(start, length):
    with pytest.raises(ValueError, match=r"for 30 slots: pass .* kv_start \+ kv_len at most the slots"):
        Dense().prepare(KEYS, VALUES, kv_start=start, kv_len=length)


def test_take_carries_the_center_along():
    method = Socket(num_tables=5, center_keys=True)
    taken = method.prepare(KEYS, VALUES, key=KEY).take([1, 0])
    direct = method.prepare(KEYS[[1, 0]], VALUES[[1, 0]], key=KEY)
    new = KEYS[:, :, :3] + 1
    codes = (cache.append(new, new).index.arrays["codes"] for cache in (taken, direct))
    np.testing.assert_array_equal(*codes)


def test_numpy_scalars_are_settings_like_any_other(tmp_path):
    method = Socket(
        num_tables=np.int64(4), num_planes=np.uint8(10), temperature=np.float32(0.5), value_weight=np.bool_(True)
    )
    assert method == Socket(num_tables=4, temperature=0.5, value_weight=True)
    assert method.nominal_bits == 40
    save_cache(method.prepare(KEYS, VALUES, key=KEY), tmp_path / "cache")
    assert load_cache(tmp_path / "cache").method == method
    budget = Budget(tokens=np.int64(300), sink=np.uint8(200), window=np.uint8(100))
    assert budget.kept(1000) == 300
    assert Budget(fraction=np.float16(0.5)).kept(200_000) == 100_000


@pytest.mark.parametrize(
    "method",
    [
        Dense(),
        HardLSH(num_tables=5),
        Socket(num_tables=5, center_keys=True, value_weight=True),
        SocketSampling(num_tables=5, num_samples=20, value_aware=True),
        Race(),
    ],
    ids=lambda method: type(method).__name__,
)
@pytest.mark.parametrize("library", ["numpy", "bfloat16", "torch", "torch.bfloat16"])
def test_a_saved_cache_answers_the_same(method, library, tmp_path, require_extra):
    arrays = [QUERY, KEYS, VALUES]
    if library == "bfloat16":
        arrays = [a.astype(require_extra("torch", "ml_dtypes").bfloat16) for a in arrays]
    elif library.startswith("torch"):
        torch = require_extra("torch", "torch")
        arrays = [torch.from_numpy(a) for a in arrays]
        if library == "torch.bfloat16":
            require_extra("torch", "ml_dtypes")
            arrays = [a.to(torch.bfloat16) for a in arrays]
    hashed = {} if method.sample_type is None else {"key": KEY}
    cache = method.prepare(*arrays[1:], kv_start=[2, 0], kv_len=[28, 7], capacity=40, **hashed)
    save_cache(cache, tmp_path / "cache.npz")
    again = load_cache(tmp_path / "cache.npz")
    options = {name: given for name, given in (("key", KEY), ("budget", BUDGET)) if name in method.takes}
    first, second = (method.attend(arrays[0], c, **options) for c in (cache, again))
    assert type(first.value) is type(second.value)
    assert bool((first.value == second.value).all())
    assert again.capacity == 40
    assert again.nbytes == cache.nbytes
    more = [a[:, :, :2] for a in arrays[1:]]
    grown = [held.append(*more) for held in (cache, again)]
    if method.keeps_rows:
        assert bool((grown[0].keys == grown[1].keys).all())
    first, second = (method.attend(arrays[0], held, **options) for held in grown)
    assert bool((first.value == second.value).all())


def test_oracle_logits_beyond_float32_still_rank():
    keys = np.ones((1, 5, 2)) * np.arange(1.0, 6.0)[::-1, None] * 1e25
    keys[..., 1] = 0
    query = np.array([[1e25, 0.0], [-1e25, 0.0]])
    cache = OracleTopK().prepare(keys, keys)
    assert OracleTopK().attend(query[:1], cache, budget=Budget(tokens=1)).indices.tolist() == [[0]]
    shared = OracleTopK().attend(query, cache, budget=Budget(tokens=2, per="kv_head"))
    assert np.isfinite(shared.value).all()


def test_a_temperature_whose_weights_underflow_still_ranks_by_them():
    method = Socket(num_planes=16, num_tables=4, query_map="tanh", temperature=0.01)
    cache = method.prepare(KEYS, VALUES, key=KEY)
    sampler = SocketSampling(num_planes=16, num_tables=4, query_map="tanh", temperature=0.01)
    hashed = dataclasses.replace(cache, method=sampler)
    own = operations("socket_lsh", cache.backend)
    logs = own.log_soft_scores(QUERY, hashed.index.arrays["codes"], cache.kv_range, cache.sample, "tanh", 0.01)
    best = method.attend(QUERY, cache, budget=Budget(tokens=1)).indices[..., 0]
    # Weights that agree to float32 tie, and the later token wins.
    chosen = np.take_along_axis(logs, best[..., None], axis=-1)[..., 0]
    assert (chosen >= logs.max(-1) - 1e-6).all()
    assert not np.array_equal(best, np.full((2, 4), 29))


def grown(cache, first, count=1):
    """The cache with tokens `first` to `first + count` of a second text behind it."""
    new = -KEYS[:, :, first : first + count], -VALUES[:, :, first : first + count]
    return cache.append(*new)


@pytest.mark.parametrize("ranges", [{}, {"kv_start": [4, 0], "kv_len": [26, 17]}], ids=["whole", "ragged"])
@pytest.mark.parametrize("capacity", [None, 40])
def test_caches_of_one_origin_are_values_however_they_grow(ranges, capacity):
    method = Socket(num_tables=5, value_weight=True)
    prepared = method.prepare(KEYS, VALUES, key=KEY, capacity=capacity, **ranges)
    one = grown(prepared, 0)
    family = [prepared, one, grown(one, 1, 3), grown(prepared, 7), grown(one.truncate(12), 5, 4), one.take([1, 0])]
    family += [grown(family[2], 9), grown(family[5], 3, 2), grown(family[3], 2), grown(prepared.truncate(3), 1)]
    # A sequence cut short beside one that is whole, and a copy's own descendants: each may overwrite what others hold.
    family += [grown(one.truncate([5, int(one.kv_len[1])]), 8, 2), grown(family[3].truncate(4), 6, 3)]

    def answers():
        return [method.attend(QUERY, cache, budget=BUDGET) for cache in family]

    def alone(cache):
        rows = [(row, start, start + length) for row, (start, length) in enumerate(cache.kv_range)]
        made = [[a[row, :, start:stop] for a in (cache.keys, cache.values)] for row, start, stop in rows]
        return [method.prepare(*arrays, sample=cache.sample) for arrays in made]

    before = answers()
    for cache, answer in zip(family, before, strict=True):
        for row, single in enumerate(alone(cache)):
            np.testing.assert_array_equal(method.attend(QUERY[row], single, budget=BUDGET).value, answer.value[row])
            start, stop = cache.kv_range[row, 0], cache.kv_range[row].sum()
            for name in ("codes", "value_norms"):
                mine, theirs = (made.index.arrays[name] for made in (cache, single))
                np.testing.assert_array_equal(mine[row, ..., start:stop], theirs[0])
    for cache in family:
        if capacity is None or int(cache.kv_range.sum(axis=1).max()) < capacity:
            grown(cache, 20)
    for earlier, later in zip(before, answers(), strict=True):
        np.testing.assert_array_equal(earlier.value, later.value)
        np.testing.assert_array_equal(earlier.indices, later.indices)


def all_arrays(cache):
    return {"keys": cache.keys, "values": cache.values} | dict(cache.index.arrays)


def test_with_capacity_an_append_to_the_newest_cache_copies_no_other_token():
    method = Socket(num_tables=5, value_weight=True)
    cache = method.prepare(KEYS, VALUES, key=KEY, capacity=40)
    longer = grown(grown(cache, 0), 1, 2)
    for name, array in all_arrays(cache).items():
        assert np.shares_memory(array, all_arrays(longer)[name])
        assert not np.shares_memory(array, all_arrays(grown(cache, 3))[name])
        with pytest.raises(ValueError, match="read-only"):
            all_arrays(longer)[name][0] = 1
    assert longer.nbytes * 30 == cache.nbytes * 33
    whole = method.prepare(KEYS, VALUES, key=KEY)
    assert cache.nbytes == whole.nbytes
