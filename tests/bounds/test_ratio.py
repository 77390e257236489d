"""Finite tables (S9): every radius against the errors of drawn tables, the exact moments, and the inverses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest

from socket_theory.bounds.ratio import (
    bernstein_ratio_radius,
    bernstein_ratio_tables,
    chebyshev_radius,
    chebyshev_tables,
    empirical_bernstein_radius,
    fourth_moment_radius,
    hoeffding_ratio_radius,
    hoeffding_ratio_tables,
    normaliser_failure,
    normaliser_failure_tables,
    normaliser_tables,
    paper_condition_tables,
    plug_in_radius,
    plug_in_tables,
)
from socket_theory.bounds.residual import ResidualMoments, residual_covariance, spare_table_moments
from socket_theory.bounds.residual_range import residual_range
from socket_theory.core.angular import angles
from socket_theory.core.hashing import Planes, apply_query_map, hash_keys, project_query
from socket_theory.core.rng import Key
from socket_theory.socket_lsh.bounds.residual_moments import table_residuals, weight_covariance
from socket_theory.socket_lsh.bounds.weight_range import weight_bound
from socket_theory.socket_lsh.law import SoftKernel

Float = np.ndarray[Any, np.dtype[np.float64]]
DELTA = 0.05


@dataclass(frozen=True)
class Instance:
    """64 random keys and values in 16 dimensions, P = 3, tau = 0.7: theory's first measured instance."""

    kernel = SoftKernel(3, 0.7, "tanh", 16)
    rng = Key.from_seed(7).generator()
    query, keys, values = 1.5 * rng.standard_normal(16), rng.standard_normal((64, 16)), rng.standard_normal((64, 16))
    norm = float(np.linalg.norm(query))

    @cached_property
    def theta(self) -> Float:
        return angles(self.query, self.keys)

    @cached_property
    def target(self) -> Float:
        kappa = self.kernel.mean(self.theta, self.norm)
        return np.asarray(kappa @ self.values / kappa.sum())

    @property
    def mass(self) -> float:
        return float(self.kernel.mean(self.theta, self.norm).sum())

    def tables(self, count: int, tag: str) -> tuple[Float, Float]:
        """X_l(y_tau) and Z_l of fresh tables, 10 000 at a time."""
        rng, parts = Key.from_seed(8).fold_in(tag).generator(), []
        for start in range(0, count, 10_000):
            planes = Planes(rng.standard_normal((min(10_000, count - start), 3, 16)))
            mapped = apply_query_map(project_query(self.query, planes), "tanh", 16)
            parts.append(table_residuals(mapped, hash_keys(self.keys, planes), 0.7, self.values, self.target))
        return np.concatenate([x for x, _ in parts]), np.concatenate([z for _, z in parts])

    @cached_property
    def covariance(self) -> Float:
        pairs = np.stack([angles(key, self.keys) for key in self.keys])
        weights = weight_covariance(self.kernel, self.theta, pairs, self.norm)
        return residual_covariance(weights, self.values - self.target)


@pytest.fixture(scope="module")
def instance() -> Instance:
    return Instance()


@pytest.fixture(scope="module")
def spare(instance: Instance) -> tuple[Float, Float]:
    return instance.tables(4000, "spare")


def test_every_radius_keeps_its_promise_and_the_moment_forms_are_tight(
    instance: Instance, spare: tuple[Float, Float]
) -> None:
    count, trials = 200, 300
    residuals, masses = instance.tables(count * trials, "trials")
    realised = masses.reshape(trials, count).mean(axis=1)
    errors = np.linalg.norm(residuals.reshape(trials, count, -1).mean(axis=1), axis=-1) / realised
    bound = residual_range(instance.kernel.weight_range(), instance.values - instance.target)
    second = float(np.trace(instance.covariance))
    fourth = ResidualMoments(second, float((instance.covariance**2).sum()), spare_table_moments(spare[0], 3.0).fourth)
    tightness = {}
    for name, limit in {
        "plug-in": plug_in_radius(DELTA, count, bound, realised),
        "bernstein": bernstein_ratio_radius(DELTA, count, second, bound, realised),
        "chebyshev": chebyshev_radius(DELTA, count, second, realised),
        "fourth": fourth_moment_radius(DELTA, count, fourth, realised),
    }.items():
        assert np.mean(errors > limit) <= DELTA, name
        tightness[name] = 1 / np.quantile(errors / limit, 1 - DELTA)
    assert 10 < tightness["plug-in"] < 16
    assert 2 < tightness["bernstein"] < 3  # 5.6 with R = B D
    assert 1 < tightness["fourth"] < tightness["chebyshev"] < 5
    assert tightness["fourth"] < 2


def test_empirical_bernstein_needs_no_target(instance: Instance) -> None:
    weights, about = instance.kernel.weight_range(), instance.values - instance.target
    residuals, masses = instance.tables(5000, "empirical")
    shift = residuals.mean(axis=0) / masses.mean()
    centred = residuals - masses[:, None] * shift
    radius = empirical_bernstein_radius(DELTA, centred, masses, weights, about - shift)
    assert np.linalg.norm(shift) <= radius < 0.02 * np.max(np.linalg.norm(about, axis=1))
    few = slice(0, 3)
    assert empirical_bernstein_radius(DELTA, residuals[few], masses[few], weights, about) == np.inf


def test_hoeffding_form_speaks_from_its_condition_on(instance: Instance) -> None:
    bound = weight_bound(instance.kernel, 64)
    least = normaliser_tables(DELTA, bound, instance.mass)
    assert hoeffding_ratio_radius(DELTA, least - 1, bound, 5.0, instance.mass) == np.inf
    assert hoeffding_ratio_radius(DELTA, least, bound, 5.0, instance.mass) < np.inf
    np.testing.assert_allclose(least, 2 * bound**2 * np.log(2 / DELTA) / instance.mass**2, atol=1)
    assert paper_condition_tables(4 * DELTA, bound, instance.mass) == least


def test_sharper_normaliser_needs_fewer_tables(instance: Instance) -> None:
    bound = weight_bound(instance.kernel, 64)
    least = normaliser_tables(DELTA, bound, instance.mass)
    assert normaliser_failure(least, instance.mass, bound * instance.mass) < DELTA / 2
    few = normaliser_failure(50, instance.mass, 2 * instance.mass**2)
    assert few == pytest.approx(np.exp(-50 / 16))
    assert normaliser_failure_tables(DELTA, instance.mass, bound * instance.mass) < least


@pytest.mark.parametrize("delta", [0.3, 1e-6])
@pytest.mark.parametrize("second_moment", [9.0, 200.0])
def test_normaliser_tables_invert_the_sharper_failure(delta: float, second_moment: float) -> None:
    tables = normaliser_failure_tables(delta, 3.0, second_moment)
    assert normaliser_failure(tables, 3.0, second_moment) <= delta * (1 + 1e-9)
    assert normaliser_failure(tables - 1, 3.0, second_moment) > delta


@pytest.mark.parametrize("delta", [0.3, 1e-6])
@pytest.mark.parametrize("epsilon", [0.003, 0.1])
def test_tables_invert_the_radii(delta: float, epsilon: float) -> None:
    bound, radius, mass, second, norm = 40.0, 2.0, 3.0, 5.0, 80.0
    forms: list[tuple[int, Callable[[int], float]]] = [
        (
            plug_in_tables(epsilon, delta, norm, mass),
            lambda n: float(plug_in_radius(delta, n, norm, mass)),
        ),
        (
            bernstein_ratio_tables(epsilon, delta, second, norm, mass),
            lambda n: float(bernstein_ratio_radius(delta, n, second, norm, mass)),
        ),
        (chebyshev_tables(epsilon, delta, second, mass), lambda n: float(chebyshev_radius(delta, n, second, mass))),
        (
            hoeffding_ratio_tables(epsilon, delta, bound, radius, mass),
            lambda n: hoeffding_ratio_radius(delta, n, bound, radius, mass),
        ),
    ]
    for tables, form in forms:
        assert form(tables) <= epsilon * (1 + 1e-9)
        assert form(tables - 1) > epsilon * (1 - 1e-9)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: plug_in_radius(0.0, 10, 1.0, 1.0), "delta=0.0 was given"),
        (lambda: chebyshev_radius(0.1, 0, 1.0, 1.0), "num_tables=0 was given"),
        (lambda: chebyshev_radius(0.1, 10, 1.0, 0.0), "realised_mass=0.0 was given: pass finite numbers above 0"),
        (lambda: normaliser_tables(0.1, 1.0, 0.0), "mass=0.0 was given"),
        (lambda: normaliser_tables(0.1, 1.0, 1e-200), r"mass=1e-200 needs more than 1e\+18 terms"),
        (lambda: normaliser_failure_tables(0.1, 1e-200, 1.0), "mass=1e-200 needs"),
        (lambda: plug_in_tables(0.1, 0.1, -1.0, 1.0), "norm_bound=-1.0 was given"),
        (lambda: bernstein_ratio_tables(0.1, 0.1, 1.0, -1.0, 1.0), "norm_bound=-1.0 was given"),
        (lambda: hoeffding_ratio_radius(0.1, 10**6, 1.0, -1.0, 1.0), "value_radius=-1.0 was given"),
        (lambda: plug_in_tables(1e-100, 0.1, 1.0, 1.0), r"epsilon=1e-100 needs more than 1e\+18 terms"),
        (lambda: bernstein_ratio_tables(1e-200, 0.1, 1.0, 1.0, 1e-200), "epsilon=1e-200 was given"),
        (lambda: hoeffding_ratio_tables(1e-200, 0.1, 1.0, 1.0, 1.0), "epsilon=1e-200 was given"),
        (lambda: chebyshev_tables(1e-200, 0.1, 1.0, 1e-200), "epsilon=1e-200 was given"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
