"""Soft collisions (S1, S2) and hard collisions (S3) against definitions written out a second time."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="pip install 'socket-theory[test]'")
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from socket_theory.core.hashing import (
    MAX_PLANES,
    QUERY_MAPS,
    Planes,
    SignHash,
    apply_query_map,
    hash_keys,
    project_query,
)
from socket_theory.core.rng import Key
from socket_theory.socket_lsh.collisions import (
    hard_collision_scores,
    log_soft_collision_scores,
    log_soft_collisions,
    soft_collision_scores,
    soft_collisions,
)

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
    np.testing.assert_allclose(soft_collisions(mapped, codes, temperature), law, rtol=1e-10, atol=1e-300)


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


def test_every_token_of_a_long_cache_is_scored() -> None:
    mapped, count = np.tanh(3 * normals(1, 2, 10)), 2 * 8192 + 3
    codes = Key.from_seed(1).generator().integers(0, 2**10, (2, count)).astype(np.uint16)
    definition = np.exp(log_soft_collisions(mapped, codes, 0.4)).mean(0)
    np.testing.assert_allclose(soft_collision_scores(mapped, codes, 0.4), definition, rtol=1e-11)
    np.testing.assert_allclose(log_soft_collision_scores(mapped, codes, 0.4), np.log(definition), rtol=1e-11)


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


def test_a_query_on_a_plane_is_on_its_positive_side() -> None:
    codes = np.array([[0b11, 0b10, 0b01, 0b00]], dtype=np.uint16)
    assert hard_collision_scores(np.zeros((1, 2)), codes).tolist() == [1, 0, 0, 0]
    assert hard_collision_scores(np.array([[-1.0, 0.0]]), codes).tolist() == [0, 1, 0, 0]


@given(SEEDS, PLANE_COUNTS)
def test_s2_the_cold_limit_of_the_soft_score_is_the_hard_score(seed: int, num_planes: int) -> None:
    planes, query = planes_of(seed, 6, num_planes, 8), normals(seed, 8)
    projections = project_query(query, planes)
    codes = hash_keys(query + 0.3 * normals(seed + 1, 50, 8), planes)
    temperature = np.abs(projections).min() / 100
    soft = soft_collision_scores(projections, codes, temperature)
    np.testing.assert_allclose(soft, hard_collision_scores(projections, codes), atol=1e-12)
