"""Any finite input gives a finite answer: no NaN, no warning, no crash, whatever the shape, stride or magnitude."""

import importlib
import warnings

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="pip install 'socket-theory[test]'")
import contextlib

from hypothesis import given
from hypothesis import strategies as st

from socket_theory import (
    Bernoulli,
    BernoulliSanta,
    Budget,
    Dense,
    HardLSH,
    Key,
    OracleTopK,
    Race,
    RandomTokens,
    Santa,
    Socket,
    SocketSampling,
    Window,
)
from socket_theory.core.selection import ForcedTokensWarning

KEY = Key.from_seed(3)
EXPONENTS = {"float16": (-6, 4), "float32": (-30, 30), "float64": (-30, 30), "bfloat16": (-30, 30)}
DTYPES = [np.dtype(name) for name in ("float16", "float32", "float64")]
with contextlib.suppress(ImportError):
    DTYPES.append(np.dtype(importlib.import_module("ml_dtypes").bfloat16))


@st.composite
def steps(draw):
    """A decode step of odd shape: heads in any ratio, padded ragged spans, strided or reversed arrays, huge or tiny."""
    dtype = draw(st.sampled_from(DTYPES))
    num_kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    batch, slots, dim = draw(st.integers(1, 3)), draw(st.integers(1, 90)), draw(st.sampled_from([1, 2, 3, 8, 17]))
    source = KEY.fold_in("fuzz", draw(st.integers(0, 2**32))).generator()

    def array(*shape):
        low, high = EXPONENTS[dtype.name]
        scale = 10.0 ** draw(st.integers(low, high))
        flat = source.standard_normal((*shape[:-1], 2 * shape[-1])).clip(-4, 4) * scale
        flat[source.random(flat.shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = 0.0
        made = flat.astype(dtype)
        return draw(
            st.sampled_from([made[..., ::2], made[..., : shape[-1]], made[..., ::-2], made[..., ::2].copy(order="F")])
        )

    start = np.array([draw(st.integers(0, slots - 1)) for _ in range(batch)])
    length = np.array([draw(st.integers(1, slots - s)) for s in start])
    keys, values = array(batch, num_kv_heads, slots, dim), array(batch, num_kv_heads, slots, dim)
    query = array(batch, num_kv_heads * group, dim)
    sink, window = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    budget = draw(
        st.sampled_from(
            [
                Budget(tokens=max(1, sink + window), sink=sink, window=window),
                Budget(fraction=draw(st.floats(1e-3, 1.0)), sink=sink, window=window, per="kv_head"),
            ]
        )
    )
    return query, keys, values, start, length, budget


METHODS = st.one_of(
    st.sampled_from([Dense(), OracleTopK(), Window(), RandomTokens(), HardLSH(num_planes=3, num_tables=4)]),
    st.builds(
        Socket,
        num_planes=st.sampled_from([1, 8, 9, 16]),
        num_tables=st.integers(1, 4),
        query_map=st.sampled_from(["tanh_scaled", "tanh", "linear"]),
        temperature=st.sampled_from([1e-30, 0.05, 0.4, 1e30]),
        value_weight=st.booleans(),
        center_keys=st.booleans(),
    ),
    st.builds(
        SocketSampling,
        num_planes=st.sampled_from([1, 9, 16]),
        num_tables=st.integers(1, 4),
        query_map=st.sampled_from(["tanh_scaled", "tanh", "linear"]),
        temperature=st.sampled_from([1e-30, 0.05, 0.4, 1e30]),
        num_samples=st.integers(1, 9),
        value_aware=st.booleans(),
    ),
    st.builds(Santa, num_samples=st.integers(1, 200), sampler=st.sampled_from(["systematic", "stratified", "iid"])),
    st.builds(
        Santa,
        num_samples=st.integers(1, 200),
        sampler=st.sampled_from(["phase_carried", "flash", "floor_one", "biased_prop"]),
        tile_len=st.integers(1, 100),
    ),
    st.builds(
        Bernoulli,
        num_vectors=st.integers(1, 9),
        query_sampler=st.sampled_from(["stratified", "iid"]),
        shared_query=st.booleans(),
    ),
    st.builds(
        Race,
        num_planes=st.integers(1, 4),
        num_tables=st.integers(1, 4),
        beta=st.sampled_from([1e-30, 0.1, 1.0, 5.0, 20.0]),
    ),
    st.builds(BernoulliSanta, num_samples=st.integers(1, 9), num_vectors=st.integers(1, 9), shared_query=st.booleans()),
)


@given(step=steps(), method=METHODS)
def test_finite_in_finite_out(step, method):
    query, keys, values, start, length, budget = step
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ForcedTokensWarning)
        hashed = {} if method.sample_type is None else {"key": KEY}
        cache = method.prepare(keys, values, kv_start=start, kv_len=length, **hashed)
        used = {"key": KEY, "budget": budget}
        options = {name: given for name, given in used.items() if name in method.takes}
        estimate = method.attend(query, cache, out_dtype="float64", **options)
    assert np.isfinite(estimate.value).all()
    assert np.isfinite(estimate.lse).all()
    for row, (first, count) in enumerate(zip(start, length, strict=True)):
        used = estimate.indices[row][estimate.indices[row] >= 0]
        assert ((used >= first) & (used < first + count)).all()
        if "budget" in options:
            assert (estimate.stats.kept[row] == budget.kept(int(count))).all()
        valid = np.repeat(values[row, :, first : first + count].astype(float), query.shape[1] // keys.shape[1], axis=0)
        slack = 1e-9 * np.abs(valid).max()
        if getattr(method, "value_aware", False):
            assert (
                np.linalg.norm(estimate.value[row], axis=-1) <= 1.01 * np.linalg.norm(valid, axis=-1).max(-1) + slack
            ).all()
        else:
            assert (estimate.value[row] >= valid.min(1) - slack).all()
            assert (estimate.value[row] <= valid.max(1) + slack).all()


@pytest.mark.filterwarnings("ignore::socket_theory.core.selection.ForcedTokensWarning")
@given(step=steps())
def test_strides_do_not_matter(step):
    query, keys, values, start, length, budget = step
    method = Socket(num_planes=5, num_tables=3)
    results = []
    for copy in (np.asarray, np.ascontiguousarray):
        cache = method.prepare(copy(keys), copy(values), key=KEY, kv_start=start, kv_len=length)
        results.append(method.attend(copy(query), cache, budget=budget, out_dtype="float64"))
    np.testing.assert_array_equal(results[0].indices, results[1].indices)
    np.testing.assert_array_equal(results[0].value, results[1].value)
