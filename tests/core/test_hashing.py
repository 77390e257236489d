"""Codes, query maps and planes: bit order, appending, dtypes, strides, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="pip install 'socket-theory[test]'")
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from socket_theory.core.hashing import (
    BLOCK,
    MAX_PLANES,
    Planes,
    SignHash,
    apply_query_map,
    hash_keys,
    query_map_bound,
    round_to_bfloat16,
)
from socket_theory.core.rng import Key

SEEDS = st.integers(0, 2**32)
PLANE_COUNTS = st.integers(1, MAX_PLANES)


def normals(seed: int, *shape: int) -> NDArray[np.float64]:
    return Key.from_seed(seed).generator().standard_normal(shape)


def planes_of(seed: int, num_tables: int, num_planes: int, head_dim: int) -> Planes:
    return SignHash(num_tables, num_planes, head_dim).draw(Key.from_seed(seed))


@given(SEEDS, PLANE_COUNTS, st.integers(1, 20), st.integers(0, 150))
def test_bit_p_of_a_code_is_the_side_of_plane_p(seed: int, num_planes: int, head_dim: int, count: int) -> None:
    planes = planes_of(seed, 3, num_planes, head_dim)
    keys = np.rint(normals(seed, 2, count, head_dim) * 2**10) / 2**10  # exact products, so no rounding is tested here
    codes = hash_keys(keys, planes)
    assert codes.dtype == np.uint16
    assert codes.shape == (2, 3, count)
    sides = np.einsum("hnd,lpd->hlnp", keys, planes.weights) >= 0
    assert (codes == (sides * 2 ** np.arange(num_planes)).sum(-1)).all()


@pytest.mark.parametrize("count", [1023, 1024, 1025, 2049])
def test_every_key_of_a_long_cache_is_hashed(count: int) -> None:
    planes = planes_of(3, 2, 5, 8)
    keys = np.rint(normals(4, count, 8) * 2**10) / 2**10
    sides = np.einsum("nd,lpd->lnp", keys, planes.weights) >= 0
    assert (hash_keys(keys, planes) == (sides * 2 ** np.arange(5)).sum(-1)).all()


def test_a_key_on_a_plane_counts_as_positive() -> None:
    planes = Planes(np.array([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]]))
    keys = np.array([[0.0, 0.0], [-0.0, -0.0], [0.0, -1.0], [2.0, 0.0]])
    assert hash_keys(keys, planes).tolist() == [[0b111, 0b111, 0b101, 0b011]]


@given(SEEDS, st.lists(st.integers(1, 2 * BLOCK + 3), min_size=1, max_size=5), st.booleans())
def test_appending_gives_the_codes_of_preparing_bit_for_bit(seed: int, lengths: list[int], centred: bool) -> None:
    planes = planes_of(seed, 5, 7, 48)
    center = normals(seed + 1, 48) if centred else None
    keys = normals(seed, sum(lengths), 48)
    # Half of the keys lie on a plane up to rounding: there the order of summation would show.
    plane = planes.weights[2, 3]
    near = keys - (0.0 if center is None else center)
    keys[::2] -= (near @ plane / (plane @ plane))[::2, None] * plane
    parts = np.split(keys, np.cumsum(lengths)[:-1])
    pieces = [hash_keys(part, planes, center) for part in parts]
    assert (np.concatenate(pieces, axis=-1) == hash_keys(keys, planes, center)).all()


def keys_on_planes(num_tables: int, num_planes: int, head_dim: int) -> tuple[Planes, np.ndarray]:
    """One key on each plane up to rounding: any change in the order of summation flips some of their bits."""
    planes = planes_of(7, num_tables, num_planes, head_dim)
    flat = planes.weights.reshape(-1, head_dim)
    keys = normals(8, len(flat), head_dim)
    keys -= ((keys * flat).sum(-1) / (flat * flat).sum(-1))[:, None] * flat
    return planes, keys


@pytest.mark.parametrize(("num_tables", "num_planes"), [(61, 6), (60, 9), (60, 10), (50, 10), (30, 5)])
@pytest.mark.parametrize("head_dim", [80, 96, 128])
def test_a_key_on_a_plane_has_the_same_bits_wherever_it_arrives(
    num_tables: int, num_planes: int, head_dim: int
) -> None:
    planes, keys = keys_on_planes(num_tables, num_planes, head_dim)
    whole = hash_keys(keys, planes)
    for cut in (1, 5, 33, 64, 100):
        parts = np.concatenate([hash_keys(keys[:cut], planes), hash_keys(keys[cut:], planes)], axis=-1)
        assert (parts == whole).all()
    alone = np.concatenate([hash_keys(keys[i : i + 1], planes) for i in range(64, 128)], axis=-1)
    assert (alone == whole[:, 64:128]).all()


def test_codes_do_not_depend_on_the_number_of_threads() -> None:
    code = (
        "import hashlib, numpy as np\n"
        "from socket_theory import Key, SignHash\n"
        "from socket_theory.core.hashing import hash_keys\n"
        "planes = SignHash(61, 6, 96).draw(Key.from_seed(7))\n"
        "flat = planes.weights.reshape(-1, 96)\n"
        "keys = Key.from_seed(8).generator().standard_normal((2000, 96))\n"
        "rows = flat[np.arange(2000) % len(flat)]\n"
        "keys -= ((keys * rows).sum(-1) / (rows * rows).sum(-1))[:, None] * rows\n"
        "print(hashlib.blake2b(hash_keys(keys, planes).tobytes()).hexdigest())\n"
    )
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    digests = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | dict.fromkeys(variables, str(threads)),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in (1, 2, 4)
    ]
    assert len(set(digests)) == 1


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_every_key_dtype_hashes_as_the_values_it_holds(dtype: str, require_extra: Callable[..., Any]) -> None:
    kind = require_extra("test", "ml_dtypes").bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    planes = planes_of(1, 4, 6, 32)
    keys = normals(2, 3, 100, 32).astype(kind)
    assert (hash_keys(keys, planes) == hash_keys(keys.astype(np.float64), planes)).all()


@given(SEEDS, st.integers(1, 3), st.integers(1, 3))
def test_strides_do_not_change_the_codes(seed: int, row_step: int, column_step: int) -> None:
    wide = normals(seed, 90 * row_step, 16 * column_step)
    view = wide[::-row_step, ::column_step]
    planes = planes_of(seed, 3, 4, 16)
    assert (hash_keys(view, planes) == hash_keys(view.copy(), planes)).all()
    transposed = np.asfortranarray(view)
    assert (hash_keys(transposed, planes) == hash_keys(view, planes)).all()


@given(SEEDS, st.floats(1e-30, 1e30))
def test_positive_scaling_of_a_key_keeps_its_code(seed: int, scale: float) -> None:
    planes, keys = planes_of(seed, 3, 8, 24), normals(seed, 20, 24)
    power = 2.0 ** np.rint(np.log2(scale))
    assert (hash_keys(keys * power, planes) == hash_keys(keys, planes)).all()


@given(SEEDS)
def test_center_is_subtracted_before_hashing_for_each_head(seed: int) -> None:
    planes, keys, center = planes_of(seed, 3, 8, 24), normals(seed, 2, 70, 24), normals(seed + 1, 2, 24)
    assert (hash_keys(keys, planes, center) == hash_keys(keys - center[:, None], planes)).all()


def test_the_three_query_maps() -> None:
    z = np.array([-2.0, 0.0, 0.5])
    assert (apply_query_map(z, "tanh", 64) == np.tanh(z)).all()
    assert (apply_query_map(z, "tanh_scaled", 64) == np.tanh(z) / 8).all()
    assert (apply_query_map(z, "linear", 64) == z).all()
    assert [query_map_bound(name, 64) for name in ("tanh", "tanh_scaled", "linear")] == [1.0, 0.125, np.inf]
    with pytest.raises(ValueError, match="query_map='sign' is unknown: pass one of tanh_scaled, tanh, linear"):
        apply_query_map(z, "sign", 64)  # type: ignore[arg-type]


SINGLES = st.floats(allow_nan=False, allow_infinity=False, width=32)
SUBNORMALS = st.integers(-(2**23), 2**23).map(lambda steps: steps * 2.0**-149)


@given(st.lists(st.one_of(SINGLES, SUBNORMALS), min_size=1))
def test_round_to_bfloat16_equals_ml_dtypes(require_extra: Callable[..., Any], values: list[float]) -> None:
    bfloat16 = require_extra("test", "ml_dtypes").bfloat16
    x = np.array(values)
    x = x[np.abs(x) < 3.38e38]  # above it bfloat16 overflows
    assert (round_to_bfloat16(x) == x.astype(np.float32).astype(bfloat16).astype(np.float64)).all()


def test_drawn_planes_hold_bfloat16_values() -> None:
    weights = planes_of(0, 10, 10, 64).weights
    assert weights.shape == (10, 10, 64)
    assert (weights == round_to_bfloat16(weights)).all()
    assert (weights != planes_of(1, 10, 10, 64).weights).any()


def test_sixteen_planes_fill_a_code() -> None:
    planes = planes_of(5, 1, MAX_PLANES, 4)
    codes = hash_keys(np.stack([planes.weights[0, 15], -planes.weights[0, 15]]), planes)
    assert (codes >> 15).tolist() == [[1, 0]]


def test_planes_are_a_copy_that_nothing_changes() -> None:
    weights = normals(0, 2, 3, 4)
    planes = Planes(weights)
    weights[0] = 7.0
    assert (planes.weights[0] != 7.0).all()
    with pytest.raises(ValueError, match="read-only"):
        planes.weights[0] = 7.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0, 4, 8), "num_tables=0 was given: pass an integer of at least 1"),
        ((4, 17, 8), "num_planes=17 was given: pass at most 16, codes are 16 bits"),
        ((4, 4, -1), "head_dim=-1 was given: pass an integer of at least 1"),
    ],
)
def test_impossible_hashes_are_refused(arguments: tuple[int, int, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SignHash(*arguments)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (np.zeros((2, 3)), r"planes of shape \(2, 3\) were given: pass"),
        (np.zeros((2, 0, 3)), r"planes of shape \(2, 0, 3\) were given: pass"),
        (np.zeros((1, 17, 3)), "num_planes=17 was given: pass at most 16"),
        (np.full((1, 1, 1), np.nan), "planes contain NaN or infinity: pass finite ones"),
    ],
)
def test_impossible_planes_are_refused(weights: NDArray[np.float64], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Planes(weights)
