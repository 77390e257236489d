"""Arrays of fewer bits are only storage: what is computed from them is what float64 arrays of the same numbers give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    Race,
    RandomTokens,
    Santa,
    SignHash,
    Socket,
    SocketSampling,
    SoftKernel,
    Window,
    angles,
    soft_angular_attention,
    softmax_attention,
)
from socket_theory.core.angular import angular_attention
from socket_theory.core.draws import sample_mean, sample_mean_value_aware
from socket_theory.core.hashing import hash_keys
from socket_theory.socket_lsh.operations import NumpyOperations

KEY = Key.from_seed(3)
NARROW = ["float16", "float32"]
METHODS = [
    Dense(),
    OracleTopK(),
    Window(),
    RandomTokens(),
    HardLSH(num_planes=4, num_tables=9),
    Socket(num_tables=9, value_weight=True),
    SocketSampling(num_tables=9, num_samples=30),
    SocketSampling(num_tables=9, num_samples=30, value_aware=True),
    Santa(num_samples=20),
    Santa(num_samples=20, sampler="flash", tile_len=7),
    Race(num_planes=3, num_tables=5),
]
PROMISED: dict[str, Callable[[Any, Any, Any], Any]] = {
    "softmax attention": lambda q, k, v: softmax_attention(q[0, 0], k[0, 0], v[0, 0]).value,
    "its lse": lambda q, k, v: softmax_attention(q[0, 0], k[0, 0], v[0, 0]).lse,
    "angles": lambda q, k, v: angles(q[0, 0], k[0, 0]),
    "angular attention": lambda q, k, v: angular_attention(q[0, 0], k[0, 0], v[0, 0], 3).value,
    "soft angular attention": lambda q, k, v: (
        soft_angular_attention(q[0, 0], k[0, 0], v[0, 0], SoftKernel(3, 0.5, "tanh", 12)).value
    ),
    "value norms": lambda q, k, v: NumpyOperations().value_norms(v, np.array([[0, 40]] * 2)),
    "sampled mean": lambda q, k, v: sample_mean(np.arange(40.0), v[0, 0], POINTS)[0],
    "value-aware mean": lambda q, k, v: sample_mean_value_aware(
        np.arange(40.0), np.arange(1.0, 41.0) / 7, v[0, 0], POINTS
    )[0],
    "codes of keys less a centre": lambda q, k, v: hash_keys(k[0, 0], PLANES, np.full(12, 1 / 3)),
}
POINTS = KEY.fold_in("points").generator().random(30)
PLANES = SignHash(200, 8, 12).draw(KEY)


def arrays(dtype: str, scale: float = 1.0) -> list[np.ndarray]:
    """A query, and keys and values of which many have the same sign, so that sums in few bits lose digits.

    A head_dim of 12 makes 1/sqrt(head_dim) a number that few bits do not hold.
    """
    draw = KEY.fold_in("arrays").generator()
    query = 2 * draw.standard_normal((2, 4, 12))
    keys, values = draw.standard_normal((2, 2, 2, 40, 12)) + 0.7
    return [(scale * a).astype(dtype) for a in (query, keys, values)]


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("name", PROMISED)
def test_a_target_is_computed_in_float64(name: str, dtype: str) -> None:
    narrow = arrays(dtype)
    found, wide = (np.asarray(PROMISED[name](*given)) for given in (narrow, [a.astype(np.float64) for a in narrow]))
    np.testing.assert_array_equal(found, wide)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_step_is_computed_in_float64(method: Any, dtype: str) -> None:
    narrow = arrays(dtype)
    prepared = {} if method.sample_type is None else {"key": KEY}
    used: dict[str, Any] = {"key": KEY, "budget": Budget(tokens=9)}
    options = {name: given for name, given in used.items() if name in method.takes}
    found, wide = (
        method.attend(q, method.prepare(k, v, **prepared), out_dtype=np.float64, **options)
        for q, k, v in (narrow, [a.astype(np.float64) for a in narrow])
    )
    np.testing.assert_array_equal(found.indices, wide.indices)
    np.testing.assert_array_equal(found.value, wide.value)
    np.testing.assert_array_equal(found.lse, wide.lse)


def test_a_mean_key_is_summed_in_float64_and_rounded_once() -> None:
    """A running sum of 3000 keys in float16 stands still from 2048 on."""
    keys = np.ones((1, 1, 3000, 2), dtype=np.float16)
    keys[..., 1] = np.float16(0.1)
    center = NumpyOperations().mean_keys(keys, np.array([[0, 3000]]))
    assert center.dtype == np.float16
    assert center.tolist() == [[[1.0, float(np.float16(0.1))]]]
    for dtype in NARROW:
        many = (KEY.generator().standard_normal((1, 2, 3000, 4)) + 5).astype(dtype)
        exact = many.astype(np.float64).mean(axis=2).astype(dtype)
        np.testing.assert_array_equal(NumpyOperations().mean_keys(many, np.array([[0, 3000]])), exact)


def test_a_center_that_is_given_keeps_the_digits_of_the_keys() -> None:
    center = KEY.fold_in("center").generator().standard_normal((2, 2, 12))
    cache = Socket(num_tables=2, center_keys=True).prepare(*arrays("float64")[1:], key=KEY, center=center)
    np.testing.assert_array_equal(cache.index.frozen["center"], center)


@pytest.mark.parametrize("scale", [2.0**-24, 2.0**24])
def test_value_aware_draws_take_norms_that_float16_does_not_hold(scale: float) -> None:
    method = SocketSampling(num_tables=9, num_samples=30, value_aware=True)
    (query, keys, values), far = arrays("float32"), arrays("float32", scale)[2]
    near, other = (
        method.attend(query, method.prepare(keys, v, key=KEY), key=KEY, out_dtype=np.float64) for v in (values, far)
    )
    np.testing.assert_allclose(other.value, scale * near.value, rtol=1e-12)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("method", [Bernoulli, BernoulliSanta], ids=lambda m: m.__name__)
def test_a_query_is_rounded_at_random_from_its_float64_values(method: Any, shared: bool, dtype: str) -> None:
    sampler = method(num_vectors=5, shared_query=shared)
    query, (_, keys, values) = arrays(dtype)[0], arrays("float64")
    cache = sampler.prepare(keys, values)
    found, wide = (sampler.attend(q, cache, key=KEY, out_dtype=np.float64) for q in (query, query.astype(np.float64)))
    np.testing.assert_array_equal(found.value, wide.value)
    np.testing.assert_array_equal(found.lse, wide.lse)


def test_a_value_norm_is_rounded_once() -> None:
    """In float32 the first number is the middle of two bfloat16 ones, and would go to the even one below."""
    values = np.array([[[[1 + 2.0**-8 + 2.0**-30, 0.0], [1 + 2.0**-8, 0.0], [1 + 2.0**-8 - 2.0**-30, 0.0]]]])
    norms = NumpyOperations().value_norms(values, np.array([[0, 3]]))
    assert norms.dtype == np.float32
    assert norms.tolist() == [[[1 + 2.0**-7, 1.0, 1.0]]]
