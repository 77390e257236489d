"""What every estimator promises, whatever it ranks by, on every backend."""

import dataclasses

import numpy as np
import pytest

from socket_theory import (
    Bernoulli,
    BernoulliSanta,
    Budget,
    Dense,
    HardLSH,
    Key,
    OracleTopK,
    RandomTokens,
    Santa,
    Socket,
    SocketSampling,
    Window,
    load_cache,
    merge_states,
)
from socket_theory.testing import assert_close

KEY = Key.from_seed(11)
METHODS = [
    Dense(),
    OracleTopK(),
    Window(),
    RandomTokens(),
    HardLSH(num_planes=4, num_tables=20),
    Socket(num_tables=12),
    Socket(num_tables=12, value_weight=True, center_keys=True, query_map="tanh"),
    SocketSampling(num_tables=12, num_samples=40),
    SocketSampling(num_tables=12, num_samples=40, value_aware=True),
    *(Santa(num_samples=9, sampler=sampler) for sampler in ("systematic", "stratified", "iid")),
    *(Santa(9, sampler, tile_len=7) for sampler in ("phase_carried", "flash", "floor_one", "biased_prop")),
    Bernoulli(num_vectors=5),
    Bernoulli(num_vectors=5, query_sampler="iid", shared_query=True),
    BernoulliSanta(num_samples=9, num_vectors=5),
]
SAMPLERS = SocketSampling | Santa | Bernoulli
RANKED = [m for m in METHODS if not isinstance(m, Dense | SAMPLERS)]
BUDGET = Budget(tokens=20, sink=3, window=5)


def name(method):
    return type(method).__name__


def arrays(batch=3, num_qo_heads=6, num_kv_heads=2, slots=60, head_dim=16, dtype="float32", seed=0):
    draw = KEY.fold_in("arrays", seed).generator()
    query = 2 * draw.standard_normal((batch, num_qo_heads, head_dim))
    keys, values = draw.standard_normal((2, batch, num_kv_heads, slots, head_dim))
    return query.astype(dtype), keys.astype(dtype), values.astype(dtype)


def prepare(backend, method, keys, values, **options):
    if hasattr(method, "num_planes"):
        options.setdefault("key", KEY)
    return method.prepare(backend.put(keys), backend.put(values), backend=backend.engine, **options)


def attend(backend, method, query, cache, budget=BUDGET, **options):
    if isinstance(method, RandomTokens | SAMPLERS):
        options.setdefault("key", KEY)
    if not isinstance(method, Dense | SAMPLERS):
        options["budget"] = budget
    return method.attend(backend.put(query), cache, **options)


def same(backend, left, right, dtype="float32"):
    np.testing.assert_array_equal(backend.get(left.indices), backend.get(right.indices))
    assert_close(backend.get(left.value), backend.get(right.value), dtype)
    assert_close(backend.get(left.lse), backend.get(right.lse), dtype)


@pytest.mark.parametrize("method", RANKED, ids=name)
def test_without_a_budget_it_is_dense_attention(backend, method):
    query, keys, values = arrays()
    dense = attend(backend, Dense(), query, prepare(backend, Dense(), keys, values))
    same(backend, attend(backend, method, query, prepare(backend, method, keys, values), budget=None), dense)


@pytest.mark.parametrize("method", RANKED, ids=name)
def test_the_budget_is_met_exactly_and_the_forced_tokens_are_in_it(backend, method):
    query, keys, values = arrays()
    estimate = attend(
        backend, method, query, prepare(backend, method, keys, values, kv_start=[0, 5, 40], kv_len=[60, 30, 15])
    )
    for row, (start, length) in enumerate(((0, 60), (5, 30), (40, 15))):
        kept = min(20, length)
        for head in range(6):
            slots = backend.get(estimate.indices)[row, head]
            slots = slots[slots >= 0].tolist()
            assert len(slots) == kept == estimate.stats.kept[row, head]
            assert slots == sorted(set(slots))
            assert {*range(start, start + 3), *range(start + length - 5, start + length)} <= set(slots)
            assert set(slots) <= set(range(start, start + length))
            assert estimate.stats.density[row, head] == pytest.approx(kept / length)


@pytest.mark.parametrize("method", METHODS, ids=name)
@pytest.mark.parametrize(("left", "right"), [(0, 9), (7, 0), (4, 3)])
def test_padding_changes_nothing(backend, method, left, right):
    query, keys, values = arrays(batch=1)
    plain = attend(backend, method, query, prepare(backend, method, keys, values))
    padded = [np.pad(a, ((0, 0), (0, 0), (left, right), (0, 0)), constant_values=np.nan) for a in (keys, values)]
    got = attend(backend, method, query, prepare(backend, method, *padded, kv_start=left, kv_len=60))
    slots = backend.get(got.indices)
    same(backend, dataclasses.replace(got, indices=backend.put(np.where(slots < 0, slots, slots - left))), plain)
    np.testing.assert_array_equal(got.stats.bytes, plain.stats.bytes)


@pytest.mark.parametrize("method", [m for m in METHODS if not isinstance(m, RandomTokens | SAMPLERS)], ids=name)
def test_a_batch_is_its_sequences_and_take_permutes_them(backend, method):
    query, keys, values = arrays()
    cache = prepare(backend, method, keys, values)
    whole = attend(backend, method, query, cache)
    order = [2, 0, 0]
    taken = attend(backend, method, query[order], cache.take(order))
    for place, row in enumerate(order):
        alone = prepare(backend, method, keys[row : row + 1], values[row : row + 1])
        single = attend(backend, method, query[row : row + 1], alone)
        for batch, at in ((whole, row), (taken, place)):
            np.testing.assert_array_equal(backend.get(batch.indices)[at], backend.get(single.indices)[0])
            assert_close(backend.get(batch.value)[at], backend.get(single.value)[0], "float32")


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_leading_axes_are_only_shape(backend, method):
    query, keys, values = arrays(batch=4)
    flat = attend(backend, method, query, prepare(backend, method, keys, values))
    shaped = [a.reshape(2, 2, *a.shape[1:]) for a in (query, keys, values)]
    got = attend(backend, method, shaped[0], prepare(backend, method, *shaped[1:]))
    assert got.value.shape == (2, 2, 6, 16)
    assert got.lse.shape == got.stats.kept.shape == (2, 2, 6)
    np.testing.assert_array_equal(backend.get(got.value).reshape(flat.value.shape), backend.get(flat.value))
    single = attend(backend, method, query[0], prepare(backend, method, keys[0], values[0]))
    assert single.value.shape == (6, 16)


@pytest.mark.parametrize(
    "method", [m for m in METHODS if not isinstance(m, RandomTokens | SocketSampling | Bernoulli)], ids=name
)
def test_grouped_heads_are_repeated_kv_heads(backend, method):
    query, keys, values = arrays()
    grouped = attend(backend, method, query, prepare(backend, method, keys, values))
    repeated = [np.repeat(a, 3, axis=1) for a in (keys, values)]
    same(backend, attend(backend, method, query, prepare(backend, method, *repeated)), grouped)


@pytest.mark.parametrize("method", RANKED, ids=name)
def test_a_shared_group_keeps_one_set(backend, method):
    query, keys, values = arrays()
    budget = Budget(tokens=20, sink=3, window=5, per="kv_head")
    got = backend.get(attend(backend, method, query, prepare(backend, method, keys, values), budget).indices)
    grouped = got.reshape(3, 2, 3, -1)
    assert (grouped == grouped[:, :, :1]).all()


@pytest.mark.parametrize("method", METHODS, ids=name)
@pytest.mark.parametrize("ragged", [False, True])
def test_append_is_prepare_and_truncate_undoes_it(backend, method, ragged):
    query, keys, values = arrays()
    spans = {"kv_start": [0, 3, 6], "kv_len": [50, 41, 30]} if ragged else {"kv_len": 50}
    center = {"center": backend.put(keys[:, :, :50].mean(2))} if getattr(method, "center_keys", False) else {}
    cache = prepare(backend, method, keys[:, :, :50], values[:, :, :50], **spans, **center)
    before = attend(backend, method, query, cache)
    grown = cache.append(backend.put(keys[:, :, 50:]), backend.put(values[:, :, 50:]))
    new_keys, new_values = np.zeros((2, *keys.shape), keys.dtype)
    for row, (start, length) in enumerate(zip(backend.get(cache.kv_start), backend.get(cache.kv_len), strict=True)):
        end = start + length
        for new, old in ((new_keys, keys), (new_values, values)):
            new[row, :, :end] = old[row, :, :end]
            new[row, :, end : end + 10] = old[row, :, 50:]
    spans["kv_len"] = [n + 10 for n in backend.get(cache.kv_len)]
    whole = prepare(backend, method, new_keys, new_values, **spans, **center)
    after, direct = attend(backend, method, query, grown), attend(backend, method, query, whole)
    same(backend, after, direct)
    same(backend, attend(backend, method, query, grown.truncate(backend.get(cache.kv_len))), before)
    same(backend, attend(backend, method, query, cache), before)


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_one_token_is_returned_as_it_is(backend, method):
    query, keys, values = arrays(slots=1)
    estimate = attend(backend, method, query, prepare(backend, method, keys, values))
    assert_close(backend.get(estimate.value), np.repeat(values[:, :, 0], 3, axis=1), "float32")
    assert (estimate.stats.density == 1).all()


@pytest.mark.parametrize("method", [m for m in METHODS if isinstance(m, Dense | SocketSampling)], ids=name)
def test_states_of_disjoint_tokens_merge_to_the_whole(backend, method):
    query, keys, values = arrays(dtype="float64")

    def run(part):
        cache = prepare(backend, method, keys[:, :, part], values[:, :, part])
        estimate = (
            method.expectation(backend.put(query), cache)
            if isinstance(method, SocketSampling)
            else (attend(backend, method, query, cache))
        )
        return dataclasses.replace(estimate.state, value=backend.get(estimate.value), lse=backend.get(estimate.lse))

    merged, whole = merge_states(run(slice(0, 23)), run(slice(23, 60))), run(slice(0, 60))
    assert_close(merged.value, whole.value, "float64")
    assert_close(merged.lse, whole.lse, "float64")


@pytest.mark.parametrize("method", [m for m in METHODS if type(m) is Santa], ids=lambda method: method.sampler)
def test_sampled_values_come_with_the_exact_lse_and_merge_with_exact_ones(backend, method):
    query, keys, values = arrays(dtype="float64")
    parts = []
    for estimator, part in ((method, slice(0, 23)), (Dense(), slice(23, 60)), (Dense(), slice(0, 60))):
        estimate = attend(backend, estimator, query, prepare(backend, estimator, keys[:, :, part], values[:, :, part]))
        parts.append(
            dataclasses.replace(estimate.state, **{n: backend.get(getattr(estimate, n)) for n in ("value", "lse")})
        )
    sampled, exact, whole = parts
    merged = merge_states(sampled, exact)
    assert_close(merged.lse, whole.lse, "float64")
    share = np.exp(sampled.lse - whole.lse)[..., None]
    assert_close(merged.value, share * sampled.value + (1 - share) * exact.value, "float64")


@pytest.mark.parametrize("method", METHODS, ids=name)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_value_has_the_query_dtype_or_the_one_asked_for(backend, method, dtype):
    query, keys, values = arrays(dtype=dtype)
    cache = prepare(backend, method, keys, values)
    plain = attend(backend, method, query, cache)
    wide = attend(backend, method, query, cache, out_dtype="float64")
    assert backend.get(plain.value).dtype == dtype
    assert backend.get(wide.value).dtype == np.float64
    assert_close(backend.get(plain.value), backend.get(wide.value), dtype)


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_a_saved_cache_gives_the_same_step(backend, method, tmp_path):
    if backend.engine.name != "numpy":
        pytest.skip("caches are saved from the CPU: convert with NumPy first.")
    query, keys, values = arrays()
    cache = prepare(backend, method, keys, values, kv_start=[1, 0, 0], kv_len=[59, 60, 8], capacity=64)
    save_cache(cache, tmp_path / "cache.npz")
    again = load_cache(tmp_path / "cache.npz")
    assert again.nbytes == cache.nbytes
    assert again.capacity == 64
    same(backend, attend(backend, method, query, again), attend(backend, method, query, cache), "float64")


def test_planes_given_are_planes_drawn(backend):
    query, keys, values = arrays()
    method = Socket(num_tables=12)
    drawn = prepare(backend, method, keys, values)
    given = method.prepare(backend.put(keys), backend.put(values), sample=drawn.sample, backend=backend.engine)
    same(backend, attend(backend, method, query, given), attend(backend, method, query, drawn))


def test_the_budgeted_error_falls_from_random_to_socket_to_oracle(backend):
    query, keys, values = arrays(batch=6, slots=400, head_dim=32)
    exact = backend.get(attend(backend, Dense(), query, prepare(backend, Dense(), keys, values)).value)
    errors = []
    for method in (RandomTokens(), Socket(), OracleTopK()):
        value = backend.get(
            attend(backend, method, query, prepare(backend, method, keys, values), Budget(tokens=60)).value
        )
        errors.append(np.linalg.norm(value - exact))
    assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2]


CENTRED = Socket(num_tables=12, value_weight=True, center_keys=True)
OTHER_QUERY_SIDE = [
    (Socket(num_tables=12), Socket(num_tables=12, temperature=1.5, query_map="tanh")),
    (CENTRED, dataclasses.replace(CENTRED, query_map="linear", temperature=2.0)),
    (SocketSampling(num_tables=12), SocketSampling(num_tables=12, num_samples=7, temperature=1.0)),
    (Dense(), OracleTopK()),
    (Window(), Santa(num_samples=9)),
]


@pytest.mark.parametrize(("first", "second"), OTHER_QUERY_SIDE, ids=lambda method: str(method))
def test_what_touches_the_query_only_changes_on_a_prepared_cache(backend, first, second):
    query, keys, values = arrays()
    cache = prepare(backend, first, keys[:, :, :50], values[:, :, :50], capacity=60)
    before = attend(backend, first, query, cache)
    changed, direct = cache.with_method(second), prepare(backend, second, keys[:, :, :50], values[:, :, :50])
    assert changed.keys is cache.keys
    same(backend, attend(backend, second, query, changed), attend(backend, second, query, direct))
    same(backend, attend(backend, first, query, cache), before)
    grown = changed.append(backend.put(keys[:, :, 50:]), backend.put(values[:, :, 50:]))
    center = {"center": cache.center} if cache.center is not None else {}
    whole = prepare(backend, second, keys, values, **center)
    same(backend, attend(backend, second, query, grown), attend(backend, second, query, whole))


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        (Socket(num_tables=13), "num_tables=13 was given and the index was made with num_tables=12"),
        (Socket(num_planes=9, num_tables=12), "num_planes=9 was given and the index was made with num_planes=10"),
        (
            Socket(num_tables=12, center_keys=True),
            "center_keys=True was given and the index was made with center_",
        ),
        (
            Socket(num_tables=12, value_weight=True),
            "value_weight=True was given and the index was made with value_",
        ),
        (SocketSampling(num_tables=12), "SocketSampling does not read the index of Socket"),
        (Dense(), "Dense does not read the index of Socket"),
    ],
    ids=str,
)
def test_a_method_that_reads_another_index_is_refused(backend, method, sentence):
    cache = prepare(backend, Socket(num_tables=12), *arrays()[1:])
    with pytest.raises(ValueError, match=rf"^{sentence}.*: prepare a cache with {type(method).__name__}\(.*\)\.$"):
        cache.with_method(method)


def test_attending_with_another_temperature_names_the_way(backend):
    query, keys, values = arrays()
    cache = prepare(backend, Socket(num_tables=12), keys, values)
    with pytest.raises(ValueError, match=r"attend with it, or pass cache\.with_method\(method\)\.$"):
        attend(backend, Socket(num_tables=12, temperature=1.0), query, cache)
    with pytest.raises(ValueError, match=r"attend with it, or prepare one with Socket\(num_planes=10, num_tables=13"):
        attend(backend, Socket(num_tables=13), query, cache)
    with pytest.raises(TypeError, match=r"method is of type str: pass an estimator"):
        cache.with_method("socket")
