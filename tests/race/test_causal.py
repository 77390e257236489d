"""Causal rows at once (R6), and what a prefix, a suffix and later tokens change (R7-R9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from socket_theory.bounds.ratio import bernstein_ratio_radius, fourth_moment_radius, plug_in_radius
from socket_theory.bounds.residual import ResidualMoments
from socket_theory.core.rng import Key
from socket_theory.race.bounds.causal import (
    causal_fourth_moment_radius,
    causal_moment_radius,
    causal_plug_in_radius,
    diameters_so_far,
    row_shares,
    stream_shares,
)
from socket_theory.race.bounds.entries import weight_bound
from socket_theory.race.law import RaceKernel
from socket_theory.race.running_sums import sums_over_prefixes, sums_over_suffixes

KERNEL, TABLES = RaceKernel(2, 1.5), 50
MOMENTS = [ResidualMoments(0.1 * t, 0.01 * t**2, 0.05 * t**2) for t in range(1, 6)]
RADII, MASSES = np.array([0.0, 1.0, 1.5, 1.5, 2.0]), np.array([0.3, 0.7, 1.0, 1.2, 1.7])


def test_shares_of_rows_add_up_to_delta_and_those_of_a_stream_to_less() -> None:
    assert row_shares(0.2, 7).sum() == pytest.approx(0.2)
    assert stream_shares(0.2, 1)[0] == pytest.approx(0.2 * 6 / np.pi**2)
    assert 0.2 * (1 - 1e-4) < stream_shares(0.2, 10_000).sum() < 0.2


def test_each_row_has_its_own_radius_at_its_share() -> None:
    shares = stream_shares(0.1, 5)
    plug_in = causal_plug_in_radius(shares, KERNEL, TABLES, RADII, MASSES)
    moment = causal_moment_radius(shares, KERNEL, TABLES, RADII, MOMENTS, MASSES)
    fourth = causal_fourth_moment_radius(shares, TABLES, MOMENTS, MASSES)
    for t in range(5):
        share, bound = float(shares[t]), weight_bound(KERNEL, t + 1)
        assert plug_in[t] == pytest.approx(plug_in_radius(share, TABLES, bound * RADII[t], MASSES[t]))
        assert fourth[t] == pytest.approx(fourth_moment_radius(share, TABLES, MOMENTS[t], MASSES[t]))
        bernstein = bernstein_ratio_radius(share, TABLES, MOMENTS[t].second, bound * RADII[t], MASSES[t])
        assert moment[t] == pytest.approx(min(float(bernstein), fourth[t]))


def test_many_sets_of_tables_are_taken_at_once() -> None:
    shares, masses = row_shares(0.1, 5), np.stack([MASSES, 2 * MASSES])
    for radii in (
        causal_plug_in_radius(shares, KERNEL, TABLES, RADII, masses),
        causal_moment_radius(shares, KERNEL, TABLES, RADII, MOMENTS, masses),
        causal_fourth_moment_radius(shares, TABLES, MOMENTS, masses),
    ):
        assert radii.shape == (2, 5)
        np.testing.assert_allclose(radii[0], 2 * radii[1])


def test_the_radius_of_a_stream_grows_with_the_logarithm_of_the_row() -> None:
    rows = 1000
    shares, ones = stream_shares(0.1, rows), np.arange(1.0, rows + 1)
    radii = causal_plug_in_radius(shares, KERNEL, TABLES, np.ones(rows), ones)
    want = np.sqrt(np.log(2 / shares[-1]) / np.log(2 / shares[0]))
    assert radii[-1] / radii[0] == pytest.approx(want)
    assert want < 2.5


def test_diameters_know_the_values_seen_so_far_only() -> None:
    values = Key.from_seed(2).generator().standard_normal((12, 3))
    for t, diameter in enumerate(diameters_so_far(values)):
        seen = values[: t + 1]
        assert diameter == pytest.approx(np.max(np.linalg.norm(seen[:, None] - seen, axis=-1)))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: row_shares(1.5, 3), "delta=1.5 was given"),
        (lambda: stream_shares(0.1, 0), "rows=0 was given"),
        (lambda: diameters_so_far(np.zeros(3)), "values has shape"),
        (lambda: causal_plug_in_radius(row_shares(0.1, 5), KERNEL, TABLES, -RADII, MASSES), "diameters="),
        (lambda: causal_plug_in_radius(row_shares(0.1, 5), KERNEL, TABLES, RADII, 0 * MASSES), "realised_masses="),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 11, 12, 64])
def test_running_sums_are_the_masked_product_at_every_chunk_size(chunk: int) -> None:
    rng = Key.from_seed(4).generator()
    asked, held, values = (rng.standard_normal((2, 11, n)) for n in (3, 3, 4))
    weights = asked @ np.swapaxes(held, -1, -2)
    prefixes = sums_over_prefixes(asked, held, values, True, chunk)
    np.testing.assert_allclose(prefixes, np.tril(weights) @ values, atol=1e-13)
    suffixes = sums_over_suffixes(asked, held, values, True, chunk)
    np.testing.assert_allclose(suffixes, np.triu(weights) @ values, atol=1e-13)
    whole = sums_over_suffixes(asked, held[:, :5], values[:, :5], False, chunk)
    np.testing.assert_allclose(whole, weights[..., :5] @ values[:, :5], atol=1e-13)


@pytest.mark.parametrize(("dtype", "least", "most"), [(np.float32, 1e-4, 1e-6), (np.float64, 0.0, 1e-9)])
def test_a_suffix_by_subtraction_loses_the_digits_of_the_last_tokens_in_float32(
    dtype: Any, least: float, most: float
) -> None:
    terms = Key.from_seed(8).generator().random(100_000)
    right, last = np.cumsum(terms[::-1])[::-1], slice(-20, None)
    from_the_start, from_the_end = (np.cumsum(x.astype(dtype), dtype=dtype) for x in (terms, terms[::-1]))
    by_subtraction = from_the_start[-1] - from_the_start + terms.astype(dtype)
    assert np.max(np.abs(by_subtraction / right - 1)[last]) > least
    assert np.max(np.abs(from_the_end[::-1] / right - 1)[last]) < most
