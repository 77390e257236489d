"""What every estimator promises, whatever it ranks by, on every backend."""

import dataclasses

import numpy as np
import pytest

from socket_theory import (
    Budget,
    Dense,
    OracleTopK,
    RandomTokens,
    Santa,
    Socket,
    SocketSampling,
    Window,
    load_cache,
    merge_states,
    save_cache,
)
from socket_theory.testing import assert_close


def test_without_a_budget_it_is_dense_attention(backend, selector):
    query, keys, values = backend.arrays()
    dense = backend.attend(Dense(), query, backend.prepare(Dense(), keys, values))
    backend.same(backend.attend(selector, query, backend.prepare(selector, keys, values), budget=None), dense)


def test_the_budget_is_met_exactly_and_the_forced_tokens_are_in_it(backend, selector):
    query, keys, values = backend.arrays()
    estimate = backend.attend(
        selector, query, backend.prepare(selector, keys, values, kv_start=[0, 5, 40], kv_len=[60, 30, 15])
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


@pytest.mark.parametrize(("left", "right"), [(0, 9), (7, 0), (4, 3)])
def test_padding_changes_nothing(backend, method, left, right):
    query, keys, values = backend.arrays(batch=1)
    plain = backend.attend(method, query, backend.prepare(method, keys, values))
    padded = [np.pad(a, ((0, 0), (0, 0), (left, right), (0, 0)), constant_values=np.nan) for a in (keys, values)]
    got = backend.attend(method, query, backend.prepare(method, *padded, kv_start=left, kv_len=60))
    slots = backend.get(got.indices)
    backend.same(dataclasses.replace(got, indices=backend.put(np.where(slots < 0, slots, slots - left))), plain)
    np.testing.assert_array_equal(got.stats.bytes, plain.stats.bytes)


def test_a_batch_is_its_sequences_and_take_permutes_them(backend, undrawn):
    query, keys, values = backend.arrays()
    cache = backend.prepare(undrawn, keys, values)
    whole = backend.attend(undrawn, query, cache)
    order = [2, 0, 0]
    taken = backend.attend(undrawn, query[order], cache.take(order))
    for place, row in enumerate(order):
        alone = backend.prepare(undrawn, keys[row : row + 1], values[row : row + 1])
        single = backend.attend(undrawn, query[row : row + 1], alone)
        for batch, at in ((whole, row), (taken, place)):
            np.testing.assert_array_equal(backend.get(batch.indices)[at], backend.get(single.indices)[0])
            assert_close(backend.get(batch.value)[at], backend.get(single.value)[0], "float32")


def test_leading_axes_are_only_shape(backend, method):
    query, keys, values = backend.arrays(batch=4)
    flat = backend.attend(method, query, backend.prepare(method, keys, values))
    shaped = [a.reshape(2, 2, *a.shape[1:]) for a in (query, keys, values)]
    got = backend.attend(method, shaped[0], backend.prepare(method, *shaped[1:]))
    assert got.value.shape == (2, 2, 6, 16)
    assert got.lse.shape == got.stats.kept.shape == (2, 2, 6)
    np.testing.assert_array_equal(backend.get(got.value).reshape(flat.value.shape), backend.get(flat.value))
    single = backend.attend(method, query[0], backend.prepare(method, keys[0], values[0]))
    assert single.value.shape == (6, 16)


def test_grouped_heads_are_repeated_kv_heads(backend, headwise):
    query, keys, values = backend.arrays()
    grouped = backend.attend(headwise, query, backend.prepare(headwise, keys, values))
    repeated = [np.repeat(a, 3, axis=1) for a in (keys, values)]
    backend.same(backend.attend(headwise, query, backend.prepare(headwise, *repeated)), grouped)


def test_a_shared_group_keeps_one_set(backend, selector):
    query, keys, values = backend.arrays()
    budget = Budget(tokens=20, sink=3, window=5, per="kv_head")
    got = backend.get(backend.attend(selector, query, backend.prepare(selector, keys, values), budget=budget).indices)
    grouped = got.reshape(3, 2, 3, -1)
    assert (grouped == grouped[:, :, :1]).all()


@pytest.mark.parametrize("ragged", [False, True])
def test_append_is_prepare_and_truncate_undoes_it(backend, method, ragged):
    query, keys, values = backend.arrays()
    spans = {"kv_start": [0, 3, 6], "kv_len": [50, 41, 30]} if ragged else {"kv_len": 50}
    cache = backend.prepare(method, keys[:, :, :50], values[:, :, :50], **spans)
    before = backend.attend(method, query, cache)
    grown = cache.append(backend.put(keys[:, :, 50:]), backend.put(values[:, :, 50:]))
    new_keys, new_values = np.zeros((2, *keys.shape), keys.dtype)
    for row, (start, length) in enumerate(zip(backend.get(cache.kv_start), backend.get(cache.kv_len), strict=True)):
        end = start + length
        for new, old in ((new_keys, keys), (new_values, values)):
            new[row, :, :end] = old[row, :, :end]
            new[row, :, end : end + 10] = old[row, :, 50:]
    spans["kv_len"] = [n + 10 for n in backend.get(cache.kv_len)]
    whole = backend.prepare(method, new_keys, new_values, **spans, **cache.index.frozen)
    after, direct = backend.attend(method, query, grown), backend.attend(method, query, whole)
    backend.same(after, direct)
    backend.same(backend.attend(method, query, cache), before)
    if method.keeps_rows:
        backend.same(backend.attend(method, query, grown.truncate(backend.get(cache.kv_len))), before)
        return
    with pytest.raises(ValueError, match=r"^the index holds sums over tokens, from which none can be taken away: keep"):
        grown.truncate(backend.get(cache.kv_len))


def test_one_token_is_returned_as_it_is(backend, method):
    query, keys, values = backend.arrays(slots=1)
    estimate = backend.attend(method, query, backend.prepare(method, keys, values))
    assert_close(backend.get(estimate.value), np.repeat(values[:, :, 0], 3, axis=1), "float32")
    assert (estimate.stats.density == 1).all()


def test_states_of_disjoint_tokens_merge_to_the_whole(backend, additive):
    query, keys, values = backend.arrays(dtype="float64")

    def run(part):
        cache = backend.prepare(additive, keys[:, :, part], values[:, :, part])
        step = getattr(additive, "expectation", additive.attend)
        estimate = step(backend.put(query), cache)
        return dataclasses.replace(estimate.state, value=backend.get(estimate.value), lse=backend.get(estimate.lse))

    merged, whole = merge_states(run(slice(0, 23)), run(slice(23, 60))), run(slice(0, 60))
    assert_close(merged.value, whole.value, "float64")
    assert_close(merged.lse, whole.lse, "float64")


def test_sampled_values_come_with_the_exact_lse_and_merge_with_exact_ones(backend, sampler):
    query, keys, values = backend.arrays(dtype="float64")
    parts = []
    for estimator, part in ((sampler, slice(0, 23)), (Dense(), slice(23, 60)), (Dense(), slice(0, 60))):
        estimate = backend.attend(estimator, query, backend.prepare(estimator, keys[:, :, part], values[:, :, part]))
        parts.append(
            dataclasses.replace(estimate.state, **{n: backend.get(getattr(estimate, n)) for n in ("value", "lse")})
        )
    sampled, exact, whole = parts
    merged = merge_states(sampled, exact)
    assert_close(merged.lse, whole.lse, "float64")
    share = np.exp(sampled.lse - whole.lse)[..., None]
    assert_close(merged.value, share * sampled.value + (1 - share) * exact.value, "float64")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_value_has_the_query_dtype_or_the_one_asked_for(backend, method, dtype):
    query, keys, values = backend.arrays(dtype=dtype)
    cache = backend.prepare(method, keys, values)
    plain = backend.attend(method, query, cache)
    wide = backend.attend(method, query, cache, out_dtype="float64")
    assert backend.get(plain.value).dtype == dtype
    assert backend.get(wide.value).dtype == np.float64
    assert_close(backend.get(plain.value), backend.get(wide.value), dtype)


def test_a_saved_cache_gives_the_same_step(backend, method, tmp_path):
    if backend.engine.name != "numpy":
        pytest.skip("caches are saved from the CPU: convert with NumPy first.")
    query, keys, values = backend.arrays()
    cache = backend.prepare(method, keys, values, kv_start=[1, 0, 0], kv_len=[59, 60, 8], capacity=64)
    save_cache(cache, tmp_path / "cache.npz")
    again = load_cache(tmp_path / "cache.npz")
    assert again.nbytes == cache.nbytes
    assert again.capacity == 64
    backend.same(backend.attend(method, query, again), backend.attend(method, query, cache), "float64")


def test_planes_given_are_planes_drawn(backend):
    query, keys, values = backend.arrays()
    method = Socket(num_tables=12)
    drawn = backend.prepare(method, keys, values)
    given = method.prepare(backend.put(keys), backend.put(values), sample=drawn.sample, backend=backend.engine)
    backend.same(backend.attend(method, query, given), backend.attend(method, query, drawn))


def test_the_budgeted_error_falls_from_random_to_socket_to_oracle(backend):
    query, keys, values = backend.arrays(batch=6, slots=400, head_dim=32)
    exact = backend.get(backend.attend(Dense(), query, backend.prepare(Dense(), keys, values)).value)
    errors = []
    for method in (RandomTokens(), Socket(), OracleTopK()):
        value = backend.get(
            backend.attend(method, query, backend.prepare(method, keys, values), budget=Budget(tokens=60)).value
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
    query, keys, values = backend.arrays()
    cache = backend.prepare(first, keys[:, :, :50], values[:, :, :50], capacity=60)
    before = backend.attend(first, query, cache)
    changed, direct = cache.with_method(second), backend.prepare(second, keys[:, :, :50], values[:, :, :50])
    assert changed.keys is cache.keys
    backend.same(backend.attend(second, query, changed), backend.attend(second, query, direct))
    backend.same(backend.attend(first, query, cache), before)
    grown = changed.append(backend.put(keys[:, :, 50:]), backend.put(values[:, :, 50:]))
    whole = backend.prepare(second, keys, values, **cache.index.frozen)
    backend.same(backend.attend(second, query, grown), backend.attend(second, query, whole))


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
    cache = backend.prepare(Socket(num_tables=12), *backend.arrays()[1:])
    with pytest.raises(ValueError, match=rf"^{sentence}.*: prepare a cache with {type(method).__name__}\(.*\)\.$"):
        cache.with_method(method)


def test_attending_with_another_temperature_names_the_way(backend):
    query, keys, values = backend.arrays()
    cache = backend.prepare(Socket(num_tables=12), keys, values)
    with pytest.raises(ValueError, match=r"attend with it, or pass cache\.with_method\(method\)\.$"):
        backend.attend(Socket(num_tables=12, temperature=1.0), query, cache)
    with pytest.raises(ValueError, match=r"attend with it, or prepare one with Socket\(num_planes=10, num_tables=13"):
        backend.attend(Socket(num_tables=13), query, cache)
    with pytest.raises(TypeError, match=r"method is of type str: pass an estimator"):
        cache.with_method("socket")
