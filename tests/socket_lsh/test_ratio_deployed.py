"""Finite tables (S9) at the deployed parameters and 8192 keys: bounds within 3 of the measured quantile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from socket_theory.bounds.ratio import fourth_moment_radius
from socket_theory.bounds.ratio_variance import variance_radius
from socket_theory.bounds.residual import spare_table_moments
from socket_theory.bounds.spare_sets import spare_set_errors, spare_set_radius, spare_sets_needed
from socket_theory.core.angular import angles
from socket_theory.core.hashing import Planes, apply_query_map, hash_keys, project_query
from socket_theory.core.rng import Key
from socket_theory.socket_lsh.bounds.residual_moments import table_residuals
from socket_theory.socket_lsh.law import SoftKernel

Float = np.ndarray[Any, np.dtype[np.float64]]
KEYS, DIM, NORM, TABLES, DELTA = 8192, 128, 11.0, 60, 0.05
KERNEL = SoftKernel(10, 0.4, "tanh_scaled", DIM)
FEW, SETS = 120, 60
Instance = Callable[[np.random.Generator], tuple[Float, Float, Float]]


def gaussian(rng: np.random.Generator) -> tuple[Float, Float, Float]:
    query, keys, values = rng.standard_normal(DIM), *rng.standard_normal((2, KEYS, DIM))
    return query, keys, values


def clustered(rng: np.random.Generator) -> tuple[Float, Float, Float]:
    """64 clusters of keys and of values; the query lies in one of them."""
    label = rng.integers(0, 64, KEYS)
    centers = rng.standard_normal((2, 64, DIM))
    keys, values = centers[:, label] + 0.5 * rng.standard_normal((2, KEYS, DIM))
    return centers[0, 0] + 0.5 * rng.standard_normal(DIM), keys, values


def tables(query: Float, keys: Float, values: Float, target: Float, key: Key, count: int) -> tuple[Float, Float]:
    """X_l(target) and Z_l of fresh tables, 500 at a time."""
    parts = []
    for start in range(0, count, 500):
        rng = key.fold_in("tables", start).generator()
        planes = Planes(rng.standard_normal((min(500, count - start), KERNEL.num_planes, DIM)))
        mapped = apply_query_map(project_query(query, planes), KERNEL.query_map, DIM)
        parts.append(table_residuals(mapped, hash_keys(keys, planes), KERNEL.temperature, values, target))
    return np.concatenate([x for x, _ in parts]), np.concatenate([z for _, z in parts])


@pytest.mark.slow
@pytest.mark.parametrize("instance", [gaussian, clustered])
def test_few_spare_tables_bound_the_error_of_sixty(instance: Instance) -> None:
    query, keys, values = instance(Key.from_seed(4).generator())
    query = query * (NORM / np.linalg.norm(query))
    kappa = KERNEL.mean(angles(query, keys), NORM)
    target = kappa @ values / kappa.sum()
    spare, masses = tables(query, keys, values, target, Key.from_seed(5), spare_sets_needed(DELTA) * TABLES)
    used, used_masses = tables(query, keys, values, target, Key.from_seed(6), SETS * TABLES)
    errors = spare_set_errors(used, used_masses, TABLES)
    realised = used_masses.reshape(SETS, TABLES).mean(axis=1)
    moments = spare_table_moments(spare[:FEW], 3.0)
    forms = {
        "variance": variance_radius(DELTA, TABLES, moments, realised),
        "fourth": fourth_moment_radius(DELTA, TABLES, moments, realised),
        "sets": np.full(SETS, spare_set_radius(DELTA, spare_set_errors(spare, masses, TABLES))),
    }
    tightness = {name: 1 / np.quantile(errors / radius, 1 - DELTA) for name, radius in forms.items()}
    assert np.mean(errors > forms["variance"]) <= DELTA
    assert 1 < tightness["variance"] < 1.4
    assert tightness["variance"] < tightness["fourth"] < 2.2
    assert 0.8 < tightness["sets"] < 1.4
