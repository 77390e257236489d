"""Race: its steps and prefill against `race_attention`, a state that does not grow, and what it refuses."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_theory import (
    BorrowedRows,
    Budget,
    Dense,
    Key,
    Race,
    SignHash,
    load_cache,
    merge_states,
    race_attention,
    save_cache,
)
from socket_theory.core.checks import bfloat16
from socket_theory.core.index import SumIndex
from socket_theory.race.targets import sharpened_angular_attention
from socket_theory.testing import assert_close

KEY = Key.from_seed(43)
SETTINGS = Race(num_planes=3, num_tables=5, beta=1.5)


def inputs(batch=(2,), heads=(6, 2), slots=30, dim=8, length=5, seed=0):
    draw = KEY.fold_in("inputs", seed).generator()
    query = draw.standard_normal((*batch, heads[0], slots, dim))
    keys = draw.standard_normal((*batch, heads[1], slots, dim))
    return query, keys, draw.standard_normal((*batch, heads[1], slots, length))


def require_alike(left, right, dtype="float64"):
    assert_close(left.value, right.value, dtype)
    assert_close(left.lse, right.lse, dtype)


def test_a_step_is_one_query_over_all_tokens():
    query, keys, values = inputs()
    spans = {"kv_start": [0, 4], "kv_len": [30, 20]}
    cache = SETTINGS.prepare(keys, values, key=KEY, **spans)
    step = SETTINGS.attend(query[:, :, 3], cache)
    whole = race_attention(query[:, :, 3:4], keys, values, cache.sample, 1.5, **spans)
    assert_close(step.value, whole.value[:, :, 0], "float64")
    assert_close(step.lse, whole.lse[:, :, 0], "float64")
    assert step.kind == "angular"
    assert step.stats.kept.tolist() == [[30] * 6, [20] * 6]
    assert (step.stats.density == 1).all()
    assert step.stats.captured_mass is None


def test_the_state_is_as_long_for_one_token_as_for_many():
    query, keys, values = inputs(slots=400)
    sizes = set()
    for slots in (1, 10, 400):
        cache = SETTINGS.prepare(keys[:, :, :slots], values[:, :, :slots], key=KEY)
        assert type(cache.index) is SumIndex
        assert {name: array.shape for name, array in cache.index.arrays.items()} == {
            "mass": (2, 2, 5, 8),
            "weighted": (2, 2, 5, 8, 5),
        }
        sizes.add(cache.nbytes)
        assert SETTINGS.attend(query[:, :, 0], cache).stats.bytes.tolist() == [cache.nbytes // 2] * 2
    assert sizes == {2 * 2 * 5 * 8 * (1 + 5) * 8}
    with pytest.raises(ValueError, match=r"^the cache keeps an index and no rows: it has neither keys nor values"):
        cache.keys  # noqa: B018


def test_the_mass_of_a_table_counts_its_tokens():
    _, keys, values = inputs()
    cache = SETTINGS.prepare(keys, values, key=KEY, kv_start=[0, 4], kv_len=[30, 20])
    tokens = cache.index.arrays["mass"].sum(axis=-1)
    np.testing.assert_allclose(tokens, np.array([30.0, 20.0])[:, None, None] * np.ones((2, 2, 5)), rtol=1e-14)


@given(
    cuts=st.sets(st.integers(1, 29), max_size=4),
    settings=st.builds(
        Race, num_planes=st.integers(1, 4), num_tables=st.integers(1, 4), beta=st.sampled_from([1e-3, 0.3, 1, 3, 20])
    ),
    group=st.integers(1, 3),
    start=st.integers(0, 5),
)
def test_chunks_of_a_prefill_are_the_whole_and_so_is_their_cache(cuts, settings, group, start):
    query, keys, values = inputs((), (2 * group, 2))
    whole = settings.prefill(query, keys, values, key=KEY, kv_start=start)
    expected = race_attention(query, keys, values, whole.cache.sample, settings.beta, True, kv_start=start)
    require_alike_where_finite(whole, expected)
    borders = [0, *sorted(cut for cut in cuts if cut > start), 30]
    cache, parts = None, []
    for begin, end in pairwise(borders):
        options = {"sample": whole.cache.sample, "kv_start": start} if cache is None else {"cache": cache}
        made = settings.prefill(*(array[:, begin:end] for array in (query, keys, values)), **options)
        assert made.frozen == ()
        cache, parts = made.cache, [*parts, made]
    joined = (np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ("value", "lse"))
    require_alike_where_finite(replace(whole, **dict(zip(("value", "lse"), joined, strict=True))), expected)
    require_alike(settings.attend(query[:, -1], cache), settings.attend(query[:, -1], whole.cache))


def require_alike_where_finite(found, expected):
    np.testing.assert_array_equal(np.isneginf(found.lse), np.isneginf(expected.lse))
    seen = np.isfinite(expected.lse)
    assert (found.value[~seen] == 0).all()
    assert_close(found.value[seen], expected.value[seen], "float64")
    assert_close(found.lse[seen], expected.lse[seen], "float64")


def test_a_decode_goes_on_from_a_prefill():
    query, keys, values = inputs()
    made = SETTINGS.prefill(*(array[:, :, :20] for array in (query, keys, values)), key=KEY)
    cache, whole = made.cache, race_attention(query, keys, values, made.cache.sample, 1.5, True)
    for token in range(20, 30):
        cache = cache.append(keys[:, :, token : token + 1], values[:, :, token : token + 1])
        step = SETTINGS.attend(query[:, :, token], cache)
        assert_close(step.value, whole.value[:, :, token], "float64")
        assert_close(step.lse, whole.lse[:, :, token], "float64")


def test_caches_of_disjoint_tokens_merge():
    query, keys, values = inputs()
    sample = SignHash(5, 3, 8).draw(KEY)
    parts = [
        SETTINGS.attend(query[:, :, 0], SETTINGS.prepare(keys[:, :, part], values[:, :, part], sample=sample)).state
        for part in (slice(0, 7), slice(7, 30), slice(0, 30))
    ]
    require_alike(merge_states(*parts[:2]), parts[2])


def test_a_saved_cache_goes_on(tmp_path):
    query, keys, values = inputs()
    cache = SETTINGS.prepare(keys[:, :, :20], values[:, :, :20], key=KEY, kv_start=[0, 3], kv_len=[20, 9])
    save_cache(cache, tmp_path / "cache.npz")
    again = load_cache(tmp_path / "cache.npz")
    assert again.method == SETTINGS
    both = [one.append(keys[:, :, 20:], values[:, :, 20:]) for one in (cache, again)]
    left, right = (SETTINGS.attend(query[:, :, 0], one) for one in both)
    np.testing.assert_array_equal(left.value, right.value)
    assert left.stats.bytes.tolist() == right.stats.bytes.tolist()
    with pytest.raises(ValueError, match=r"^beta=2.0 was given and the index was made with beta=1.5: prepare a cache"):
        load_cache(tmp_path / "cache.npz", method=replace(SETTINGS, beta=2.0))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_sums_of_few_bits_are_kept_in_float64(dtype):
    dtype = bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    narrow = [array.astype(dtype) for array in inputs()]
    wide = [array.astype(np.float64) for array in narrow]
    sample = SignHash(5, 3, 8).draw(KEY)
    made, expected = (SETTINGS.prefill(*given, sample=sample, out_dtype=np.float64) for given in (narrow, wide))
    np.testing.assert_array_equal(made.value, expected.value)
    assert {array.dtype for array in made.cache.index.arrays.values()} == {np.dtype(np.float64)}
    assert SETTINGS.attend(narrow[0][:, :, 0], made.cache).value.dtype == dtype


def test_tensors_go_in_and_come_out(require_extra):
    torch = require_extra("torch", "torch")
    query, keys, values = (torch.from_numpy(array) for array in inputs())
    made = SETTINGS.prefill(query, keys, values, key=KEY)
    assert isinstance(made.value, torch.Tensor)
    expected = SETTINGS.prefill(*inputs(), key=KEY)
    np.testing.assert_array_equal(made.value.numpy(), expected.value)
    asked = query[:, :, 0].requires_grad_()
    with pytest.raises(ValueError, match=r"^query requires grad, and these estimators are not differentiable: pass"):
        SETTINGS.attend(asked, made.cache)
    with pytest.raises(ValueError, match=r"^keys requires grad, and these estimators are not differentiable: pass"):
        SETTINGS.prepare(keys.clone().requires_grad_(), values, key=KEY)


def test_a_plan_is_the_step():
    query, keys, values = inputs()
    cache = SETTINGS.prepare(keys[:, :, :20], values[:, :, :20], key=KEY, capacity=30)
    plan = cache.plan(6)
    plan.append(keys[:, :, 20:], values[:, :, 20:])
    value, lse = plan.run(query[:, :, 0])
    grown = SETTINGS.attend(query[:, :, 0], cache.append(keys[:, :, 20:], values[:, :, 20:]))
    np.testing.assert_array_equal(value, grown.value)
    np.testing.assert_array_equal(lse, grown.lse)
    plan.append(keys[:, :, :1], values[:, :, :1])
    with pytest.raises(RuntimeError, match="an append exceeded the planned capacity"):
        plan.check()
    for name, argument in (("budget", Budget(tokens=3)), ("key", KEY), ("sm_scale", 0.5)):
        with pytest.raises(TypeError, match=f"^Race does not use {name}, which was given: drop it"):
            cache.plan(6, **{name: argument})


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"beta": 0}, ValueError, "beta=0 was given: pass a finite number above 0"),
        ({"beta": -0.5}, ValueError, "beta=-0.5 was given: pass a finite number above 0"),
        ({"beta": float("nan")}, ValueError, "beta=nan was given: pass a finite number above 0"),
        ({"beta": float("inf")}, ValueError, "beta=inf was given: pass a finite number above 0"),
        ({"beta": True}, TypeError, "beta=True is of type bool: pass a number"),
        ({"beta": None}, TypeError, "beta=None is of type NoneType: pass a number"),
        ({"beta": 21.0}, ValueError, "beta=21.0 was given with num_planes=4: pass at most 20"),
        ({"num_tables": 300}, ValueError, "num_planes=4 and num_tables=300 were given, 4800 features: pass num_tables"),
        ({"num_planes": 13}, ValueError, "num_planes=13 and num_tables=4 were given, 32768 features"),
        ({"num_planes": 17}, ValueError, "num_planes=17 was given: pass at most 16"),
        ({"num_tables": 0}, ValueError, "num_tables=0 was given"),
        ({"num_planes": 2.0}, TypeError, "num_planes=2.0 is of type float: pass an integer"),
    ],
)
def test_settings_that_make_no_features_are_refused(settings, error, sentence):
    with pytest.raises(error, match=f"^{sentence}"):
        Race(**settings)


def test_settings_are_those_of_the_paper_and_a_middle_beta():
    assert Race() == Race(num_planes=4, num_tables=4, beta=1.0)
    assert Race(12, 1).num_planes == 12
    assert isinstance(Race(beta=1).beta, float)


def test_what_has_no_meaning_for_sums_is_refused_in_a_sentence():
    query, keys, values = inputs()
    cache = SETTINGS.prepare(keys, values, key=KEY, capacity=31)
    new = keys[:, :, :2], values[:, :, :2]
    refused = [
        (
            lambda: SETTINGS.attend(query[:, :, 0], cache, budget=Budget(tokens=3)),
            TypeError,
            "Race does not use budget",
        ),
        (lambda: SETTINGS.attend(query[:, :, 0], cache, sm_scale=1.0), TypeError, "Race does not use sm_scale, and"),
        (lambda: SETTINGS.prefill(*new[:1], *new, cache=cache, sm_scale=1.0), TypeError, "Race does not use sm_scale"),
        (lambda: SETTINGS.attend(query[:, :, 0], cache, key=KEY), TypeError, "Race does not use key, and key="),
        (lambda: cache.truncate(3), ValueError, "the index holds sums over tokens, from which none can be taken away"),
        (lambda: SETTINGS.attend(query[:, :, :2], cache), ValueError, "a query of 2 tokens was given and Race keeps"),
        (lambda: cache.append(*new), ValueError, "appending 2 tokens exceeds capacity=31"),
        (lambda: cache.append(BorrowedRows(*new), tokens=2), TypeError, "the cache reads no rows of another owner"),
        (lambda: cache.with_method(replace(SETTINGS, beta=1.0)), ValueError, "beta=1.0 was given and the index was"),
        (lambda: cache.with_method(Dense()), ValueError, "Dense does not read the index of Race"),
        (lambda: SETTINGS.prepare(keys, values), ValueError, "neither of key and sample were given to Race"),
        (lambda: SETTINGS.prepare(keys, values, key=KEY, center=keys), TypeError, "Race does not use center"),
        (
            lambda: SETTINGS.prepare(keys, values, sample=SignHash(4, 3, 8).draw(KEY)),
            ValueError,
            r"planes of \(num_tables, num_planes, head_dim\) = \(4, 3, 8\) were given: pass planes of \(5, 3, 8\)",
        ),
        (lambda: SETTINGS.attend(query[:, :5, 0], cache), ValueError, "the query has 5 heads and keys have 2"),
        (lambda: SETTINGS.attend(query[:, :, 0] * np.nan, cache), ValueError, "query contains NaN or infinity"),
        (lambda: SETTINGS.prepare(keys * np.inf, values, key=KEY), ValueError, "keys contains NaN or infinity"),
        (
            lambda: cache.append(new[0][:, :, :1], new[1][:, :, :1] * np.nan),
            ValueError,
            "values contains NaN or infinity",
        ),
    ]
    for call, error, sentence in refused:
        with pytest.raises(error, match=f"^{sentence}"):
            call()


def test_a_query_of_a_prefill_is_checked_where_its_slot_is_valid():
    query, keys, values = inputs()
    query[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"^query contains NaN or infinity"):
        SETTINGS.prefill(query, keys, values, key=KEY)
    made = SETTINGS.prefill(query, keys, values, key=KEY, kv_start=[0, 4])
    assert np.isfinite(made.value).all()
    with pytest.raises(ValueError, match=r"^query contains NaN or infinity"):
        SETTINGS.prefill(query, keys, values, cache=made.cache)


@pytest.mark.parametrize(("num_tables", "best"), [(4, 1.0), (16, 2.0)])
def test_the_default_beta_is_the_best_of_four_for_few_tables(num_tables: int, best: float) -> None:
    errors = dict.fromkeys((0.125, 1.0, 2.0, 10.0), 0.0)
    for seed in range(12):
        key = Key.from_seed(seed)
        draw = key.generator()
        centers = draw.standard_normal((20, 64))
        keys = centers[draw.integers(0, 20, 400)] + 0.3 * draw.standard_normal((400, 64))
        query = centers[draw.integers(0, 20, 32)] + 0.3 * draw.standard_normal((32, 64))
        values = draw.standard_normal((400, 16))
        tokens, planes = (query[None], keys[None], values[None]), SignHash(num_tables, 4, 64).draw(key)
        target = sharpened_angular_attention(*tokens, 4.0).value
        for beta in errors:
            found = race_attention(*tokens, planes, beta).value
            errors[beta] += np.linalg.norm(found - target) / np.linalg.norm(target) / 12
    assert min(errors, key=errors.__getitem__) == best, errors
