"""Rows against the kernel's means (R5): the shared forms at exact moments, and the forms by single entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from socket_theory.bounds.ratio import bernstein_ratio_radius, fourth_moment_radius, plug_in_radius
from socket_theory.bounds.residual import ResidualMoments, residual_covariance, spare_table_moments
from socket_theory.bounds.residual_range import residual_range
from socket_theory.core.angular import angles
from socket_theory.core.hashing import Planes
from socket_theory.core.rng import Key
from socket_theory.race.attention import race_attention
from socket_theory.race.bounds.entries import hoeffding_entry_radius
from socket_theory.race.bounds.residual_moments import weight_covariance
from socket_theory.race.bounds.rows import entrywise_radius, paper_row_radius
from socket_theory.race.features import collision_weights
from socket_theory.race.law import RaceKernel

KERNEL, TABLES, TOKENS, DIM, DELTA = RaceKernel(2, 1.5), 100, 24, 8, 0.05
Float = np.ndarray[Any, np.dtype[np.float64]]


@pytest.fixture(scope="module")
def row() -> dict[str, Float]:
    rng = Key.from_seed(5).generator()
    query, keys, values = (rng.standard_normal(shape) for shape in ((DIM,), (TOKENS, DIM), (TOKENS, 3)))
    lengths = np.linalg.norm(keys, axis=1)
    kappa = KERNEL.mean(angles(query, keys), np.linalg.norm(query), lengths)
    return {"query": query, "keys": keys, "values": values, "kappa": kappa, "target": kappa @ values / kappa.sum()}


def draw(row: dict[str, Float], count: int, tag: str) -> Float:
    """Weights [count, N] of single fresh tables."""
    planes = Key.from_seed(6).fold_in(tag).generator().standard_normal((count, KERNEL.num_planes, DIM))
    one = (collision_weights(row["query"][None], row["keys"], Planes(table[None]), KERNEL.beta)[0] for table in planes)
    return np.stack(list(one))


def test_the_error_of_a_row_is_a_mean_of_tables_over_its_mass(row: dict[str, Float]) -> None:
    planes = Planes(Key.from_seed(6).generator().standard_normal((TABLES, KERNEL.num_planes, DIM)))
    given = row["query"][None, None], row["keys"][None], row["values"][None]
    state = race_attention(*given, planes, KERNEL.beta)
    weights = collision_weights(row["query"][None], row["keys"], planes, KERNEL.beta)[0]
    mean = weights @ (row["values"] - row["target"])
    np.testing.assert_allclose(state.value[0, 0] - row["target"], mean / np.exp(state.lse[0, 0]), atol=1e-12)


@pytest.mark.statistical
def test_forms_keep_their_promise_at_exact_moments_and_the_fourth_is_tight(row: dict[str, Float]) -> None:
    trials, lengths = 200, np.linalg.norm(row["keys"], axis=1)
    between, about = angles(row["keys"], row["keys"]), row["values"] - row["target"]
    length = float(np.linalg.norm(row["query"]))
    covariance = weight_covariance(KERNEL, angles(row["query"], row["keys"]), between, length, lengths)
    sigma = residual_covariance(covariance, about)
    spare = spare_table_moments(draw(row, 4000, "spare") @ about, 0.0)
    np.testing.assert_allclose([spare.second, spare.trace_square], [np.trace(sigma), (sigma**2).sum()], rtol=0.08)
    exact = ResidualMoments(float(np.trace(sigma)), float((sigma**2).sum()), spare.fourth)
    sets = draw(row, trials * TABLES, "trials").reshape(trials, TABLES, -1).mean(axis=1)
    masses = sets.sum(axis=1)
    errors = np.linalg.norm(sets @ about, axis=1) / masses
    bound = residual_range(KERNEL.weight_range(), about)
    forms = {
        "plug-in": plug_in_radius(DELTA, TABLES, bound, masses),
        "bernstein": bernstein_ratio_radius(DELTA, TABLES, exact.second, bound, masses),
        "fourth": fourth_moment_radius(DELTA, TABLES, exact, masses),
    }
    tightness = {name: 1 / np.quantile(errors / limit, 1 - DELTA) for name, limit in forms.items()}
    assert tightness["plug-in"] > tightness["bernstein"] > tightness["fourth"] > 1
    assert tightness["fourth"] < 2


def test_the_papers_form_holds_for_every_set_of_weights_with_that_error(row: dict[str, Float]) -> None:
    kappa, values, rng = row["kappa"], row["values"], Key.from_seed(9).generator()
    for share in (0.1, 0.5, 0.9):
        epsilon = share * kappa.mean()
        signs = rng.choice([-1.0, 1.0], (200, TOKENS))
        weights = kappa + epsilon * signs
        estimates = weights @ values / weights.sum(axis=1, keepdims=True)
        distance = float(np.mean(np.linalg.norm(values - row["target"], axis=1)))
        errors = np.linalg.norm(estimates - row["target"], axis=1)
        kept = weights.sum(axis=1) > 0
        assert (errors[kept] <= paper_row_radius(epsilon, distance, kappa.mean())).all()


def test_the_papers_form_says_nothing_where_the_entries_are_no_better_known_than_the_mass() -> None:
    np.testing.assert_array_equal(paper_row_radius([0.1, 0.2, 0.3], 2.0, 0.2), [0.2 / 0.1, np.inf, np.inf])
    epsilon = hoeffding_entry_radius(RaceKernel(4, 2.0), 0.05 / 64, 16)
    assert paper_row_radius(epsilon, 1.0, 2.0**-4) == np.inf


def test_a_union_over_entries_divided_by_the_realised_mass_is_below_the_papers_form() -> None:
    pairs, mass = 64, 64 * 0.3
    epsilon = hoeffding_entry_radius(KERNEL, DELTA / pairs, 4000)
    realised = entrywise_radius(KERNEL, DELTA, 4000, pairs, 64 * 1.2, mass - epsilon * 64)
    np.testing.assert_allclose(realised, paper_row_radius(epsilon, 1.2, 0.3), rtol=1e-12)
    assert entrywise_radius(KERNEL, DELTA, 4000, pairs, 64 * 1.2, mass) < realised


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: paper_row_radius(-0.1, 1.0, 1.0), "entry_error=-0.1 was given"),
        (lambda: paper_row_radius(0.1, 1.0, 0.0), "mean_mass=0.0 was given"),
        (lambda: entrywise_radius(KERNEL, 0.1, 10, 0, 1.0, 1.0), "pairs=0 was given"),
        (lambda: entrywise_radius(KERNEL, 0.1, 10, 1, 1.0, 0.0), "realised_mass=0.0 was given"),
        (lambda: entrywise_radius(KERNEL, 1.0, 10, 1, 1.0, 1.0), "delta=1.0 was given"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
