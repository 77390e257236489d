"""Codes, soft collisions (S1) and hard collisions (S3) against definitions written out a second time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from socket_theory.collisions import (
    hard_collision_scores,
    log_soft_collision_scores,
    log_soft_collisions,
    soft_collision_scores,
)
from socket_theory.hashing import (
    BLOCK_ROWS,
    MAX_PLANES,
    QUERY_MAPS,
    Planes,
    SignHash,
    apply_query_map,
    hash_keys,
    project_query,
    query_map_bound,
    round_to_bfloat16,
)
from socket_theory.rng import Key

SEEDS = st.integers(0, 2**32)
PLANE_COUNTS = st.integers(1, MAX_PLANES)
TEMPERATURES = st.floats(0.01, 100.0)


def normals(seed: int, *shape: int) -> NDArray[np.float64]:
    return Key.from_seed(seed).generator().standard_normal(shape)


def planes_of(seed: int, num_tables: int, num_planes: int, head_dim: int) -> Planes:
    return SignHash(num_tables, num_planes, head_dim).draw(Key.from_seed(seed))


def signs(codes: NDArray[np.uint16], num_planes: int) -> NDArray[np.int64]:
    """s in {-1, +1}: codes [L, N] -> [L, N, P], least significant bit first."""
    return 2 * ((codes[..., None].astype(np.int64) >> np.arange(num_planes)) & 1) - 1


@given(SEEDS, PLANE_COUNTS, st.integers(1, 20), st.integers(0, 150))
def test_bit_p_of_a_code_is_the_side_of_plane_p(seed: int, num_planes: int, head_dim: int, count: int) -> None:
    planes = planes_of(seed, 3, num_planes, head_dim)
    keys = np.rint(normals(seed, 2, count, head_dim) * 2**10) / 2**10  # exact products, so no rounding is tested here
    codes = hash_keys(keys, planes)
    assert codes.dtype == np.uint16
    assert codes.shape == (2, 3, count)
    sides = np.einsum("hnd,lpd->hlnp", keys, planes.weights) >= 0
    assert (codes == (sides * 2 ** np.arange(num_planes)).sum(-1)).all()


def test_a_key_on_a_plane_counts_as_positive() -> None:
    planes = Planes(np.array([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]]))
    keys = np.array([[0.0, 0.0], [-0.0, -0.0], [0.0, -1.0], [2.0, 0.0]])
    assert hash_keys(keys, planes).tolist() == [[0b111, 0b111, 0b101, 0b011]]


@given(SEEDS, st.lists(st.integers(1, 2 * BLOCK_ROWS + 3), min_size=1, max_size=5), st.booleans())
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


@pytest.mark.parametrize("query_map", QUERY_MAPS)
@given(seed=SEEDS, num_planes=st.integers(1, 6), temperature=TEMPERATURES)
def test_s1_soft_collision_is_the_softmax_over_the_corners(
    query_map: Any, seed: int, num_planes: int, temperature: float
) -> None:
    planes = planes_of(seed, 2, num_planes, 8)
    mapped = apply_query_map(project_query(normals(seed, 8), planes), query_map, 8)
    corners = np.array([corner[::-1] for corner in itertools.product((-1, 1), repeat=num_planes)])
    logits = mapped @ corners.T / temperature
    law = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    codes = np.tile(np.arange(2**num_planes, dtype=np.uint16), (2, 1))
    np.testing.assert_allclose(np.exp(log_soft_collisions(mapped, codes, temperature)), law, rtol=1e-10, atol=1e-300)
    np.testing.assert_allclose(soft_collision_scores(mapped, codes, temperature), law.mean(0), rtol=1e-10, atol=1e-300)


@given(seed=SEEDS, temperature=st.floats(0.2, 100.0))
def test_s1_control_a_missing_factor_of_two_is_seen(seed: int, temperature: float) -> None:
    mapped = np.tanh(normals(seed, 1, 4)) + 0.0
    codes = np.arange(16, dtype=np.uint16)[None]
    s = signs(codes, 4)
    right = -np.logaddexp(0, -2 * mapped[:, None] * s / temperature).sum(-1)
    wrong = -np.logaddexp(0, -mapped[:, None] * s / temperature).sum(-1)
    found = log_soft_collisions(mapped, codes, temperature)
    np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-12)
    assert np.abs(found - wrong).max() > 1e-4 * np.abs(mapped).max() / temperature


@pytest.mark.parametrize("num_planes", range(1, MAX_PLANES + 1))
@pytest.mark.parametrize("temperature", [0.01, 0.4, 30.0])
def test_look_up_tables_equal_the_definition_bit_by_bit(num_planes: int, temperature: float) -> None:
    mapped = np.tanh(3 * normals(num_planes, 4, num_planes))
    codes = Key.from_seed(num_planes).generator().integers(0, 2**num_planes, (4, 300)).astype(np.uint16)
    definition = np.exp(log_soft_collisions(mapped, codes, temperature)).mean(0)
    np.testing.assert_allclose(soft_collision_scores(mapped, codes, temperature), definition, rtol=1e-11, atol=1e-300)


def test_log_scores_stay_finite_where_the_scores_underflow() -> None:
    mapped, temperature = np.tanh(3 * normals(0, 4, 16)), 1e-3
    codes = Key.from_seed(0).generator().integers(0, 2**16, (4, 5000)).astype(np.uint16)
    logs = log_soft_collision_scores(mapped, codes, temperature)
    assert np.isfinite(logs).all()
    scores = soft_collision_scores(mapped, codes, temperature)
    assert (scores == 0).any()
    np.testing.assert_allclose(logs[scores > 1e-290], np.log(scores[scores > 1e-290]), rtol=1e-12)


@given(SEEDS, PLANE_COUNTS, TEMPERATURES)
def test_soft_collisions_are_a_law_on_the_buckets(seed: int, num_planes: int, temperature: float) -> None:
    mapped = np.tanh(normals(seed, 1, num_planes))
    codes = np.arange(2**num_planes, dtype=np.uint32).astype(np.uint16)[None]
    np.testing.assert_allclose(soft_collision_scores(mapped, codes, temperature).sum(), 1.0, rtol=1e-10)


@given(SEEDS, PLANE_COUNTS)
def test_s3_hard_score_is_the_fraction_of_tables_with_every_side_equal(seed: int, num_planes: int) -> None:
    planes, query = planes_of(seed, 6, num_planes, 8), normals(seed, 8)
    keys = query + 0.3 * normals(seed + 1, 50, 8)
    projections, codes = project_query(query, planes), hash_keys(keys, planes)
    equal = (signs(codes, num_planes) == np.where(projections >= 0, 1, -1)[:, None]).all(-1)
    assert (hard_collision_scores(projections, codes) == equal.mean(0)).all()


@given(SEEDS, PLANE_COUNTS)
def test_s2_the_cold_limit_of_the_soft_score_is_the_hard_score(seed: int, num_planes: int) -> None:
    planes, query = planes_of(seed, 6, num_planes, 8), normals(seed, 8)
    projections = project_query(query, planes)
    codes = hash_keys(query + 0.3 * normals(seed + 1, 50, 8), planes)
    temperature = np.abs(projections).min() / 100
    soft = soft_collision_scores(projections, codes, temperature)
    np.testing.assert_allclose(soft, hard_collision_scores(projections, codes), atol=1e-12)


def test_the_three_query_maps() -> None:
    z = np.array([-2.0, 0.0, 0.5])
    assert (apply_query_map(z, "tanh", 64) == np.tanh(z)).all()
    assert (apply_query_map(z, "tanh_scaled", 64) == np.tanh(z) / 8).all()
    assert (apply_query_map(z, "linear", 64) == z).all()
    assert [query_map_bound(name, 64) for name in ("tanh", "tanh_scaled", "linear")] == [1.0, 0.125, np.inf]
    with pytest.raises(ValueError, match="query_map='sign' is unknown: pass one of tanh_scaled, tanh, linear"):
        apply_query_map(z, "sign", 64)  # type: ignore[arg-type]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1))
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
