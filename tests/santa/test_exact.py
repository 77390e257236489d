"""Strata and budgets are those of the weights as given: against fractions, however small a part or a difference is."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_theory import Santa
from socket_theory.santa.bounds import sampling_failure, stratified_spread
from socket_theory.santa.exact import as_integers, strata_of
from socket_theory.santa.law import stratum_laws
from socket_theory.santa.samplers import stratified_counts, systematic_counts
from socket_theory.santa.tiles import largest_remainder, tile_masses

NUMBERS = st.one_of(
    st.integers(0, 9).map(float), st.floats(0, 1, allow_subnormal=True), st.sampled_from([1e-300, 1e-17, 1e-11, 5e-324])
)
LAWS = st.lists(NUMBERS, min_size=1, max_size=12).map(lambda law: np.array([*law, 1.0]))


def exact_budgets(masses: np.ndarray, samples: int) -> list[int]:
    """The definition of largest remainders, on the masses as given."""
    quotas = [samples * Fraction(float(mass)) for mass in masses]
    budgets = [floor(quota) for quota in quotas]
    order = sorted(range(len(masses)), key=lambda tile: (quotas[tile] - budgets[tile], tile), reverse=True)
    for tile in order[: samples - sum(budgets)]:
        budgets[tile] += 1
    return budgets


def distribution(weights: np.ndarray) -> list[Fraction]:
    """F_0 = 0, ..., F_N = 1."""
    sums = [Fraction(0)]
    for weight in weights:
        sums.append(sums[-1] + Fraction(float(weight)))
    return [part / sums[-1] for part in sums]


def exact_strata(weights: np.ndarray, samples: int) -> dict[tuple[int, int], Fraction]:
    """S times the overlap of stratum and token, where they meet."""
    borders, overlaps = distribution(weights), {}
    for token in range(len(weights)):
        left, right = samples * borders[token], samples * borders[token + 1]
        for stratum in range(floor(left), ceil(right)):
            overlaps[stratum, token] = min(right, Fraction(stratum + 1)) - max(left, Fraction(stratum))
    return {place: overlap for place, overlap in sorted(overlaps.items()) if overlap > 0}


@given(LAWS)
def test_integers_are_the_numbers_exactly(numbers):
    integers, power = as_integers(numbers)
    assert [Fraction(n, 2**power) for n in integers] == [Fraction(float(n)) for n in numbers]


@given(LAWS, st.one_of(st.integers(1, 400), st.sampled_from([2**31, 4 * 10**9, 2**32])))
def test_budgets_are_those_of_exact_arithmetic(weights, samples):
    masses = tile_masses(weights, 1)
    budgets = largest_remainder(masses, samples)
    assert budgets.sum() == samples
    assert budgets.tolist() == exact_budgets(masses, samples)


def test_products_that_round_to_a_tie_are_told_apart():
    """174/48 is 3.625 and 9 * 174/48 is 32.625, but the float that stands for 1/48 is below it."""
    masses = np.array([9.0, 6, 8, 6, 7, 3, 8, 1]) / 48
    assert largest_remainder(masses, 174).tolist() == exact_budgets(masses, 174) == [33, 22, 29, 22, 25, 11, 29, 3]
    assert 174 * masses[7] % 1 == 174 * masses[0] % 1  # rounded, the fractions tie and the later tile would be raised


def test_masses_that_miss_one_by_a_draw_are_refused():
    for off in (9e-10, -9e-10):
        masses = np.array([0.3, 0.3, 0.4 + off])
        assert largest_remainder(masses, 10**9).sum() == 10**9
        with pytest.raises(
            ValueError, match=r"masses add up to (1\.0000000009|0\.9999999991): .* within 1 / num_samples"
        ):
            largest_remainder(masses, 4 * 10**9)


@given(LAWS, st.integers(1, 40))
def test_strata_are_those_of_exact_arithmetic(weights, samples):
    expected = exact_strata(weights, samples)
    strata, tokens, overlaps, _ = strata_of(weights, samples)
    assert list(zip(strata.tolist(), tokens.tolist(), strict=True)) == list(expected)
    least = 5e-324  # what is smaller is kept as the least number above 0
    assert overlaps.tolist() == [max(least, float(overlap)) for overlap in expected.values()]
    dense = np.zeros((samples, len(weights)))
    dense[strata, tokens] = overlaps
    np.testing.assert_array_equal(stratum_laws(weights, samples), dense)


@given(LAWS, st.integers(1, 40), st.integers(0, 10**6))
def test_the_spread_of_strata_has_every_row_that_a_stratum_meets(weights, samples, seed):
    rows = np.random.default_rng(seed).integers(-9, 10, size=(len(weights), 1)).astype(float)
    overlaps = exact_strata(weights, samples)
    means = [
        sum(part * int(rows[j, 0]) for (m, j), part in overlaps.items() if m == stratum) for stratum in range(samples)
    ]
    gaps = {(m, j): abs(int(rows[j, 0]) - means[m]) for m, j in overlaps}
    spread = stratified_spread(weights, rows, samples)
    assert spread.radius == pytest.approx(float(max(gaps.values())), abs=1e-13)
    variance = sum(part * gaps[place] ** 2 for place, part in overlaps.items()) / samples
    assert spread.variance == pytest.approx(float(variance), rel=1e-9, abs=1e-13)


def test_a_sliver_of_a_stratum_keeps_its_probability():
    """One draw of ten is the first row instead of the second with probability 1e-10, and then the error is 100."""
    weights, values = np.array([0.1 + 1e-11, 0.9 - 1e-11]), np.array([[1000.0], [0.0]])
    spread = stratified_spread(weights, values, 10)
    assert spread.radius == pytest.approx(1000)
    assert spread.variance == pytest.approx(1e-10 * 1000**2 / 10, rel=1e-5)
    for error in (99.9, 100 - 1e-8):
        assert sampling_failure(error, 10, spread) >= 1e-10


@given(LAWS, st.one_of(st.integers(1, 400), st.sampled_from([4 * 10**9, 2**32])), st.integers(0, 2**53 - 1))
@pytest.mark.parametrize("tile_len", [None, 3])
def test_systematic_counts_are_exact_but_within_the_rounding_that_is_stated(tile_len, weights, samples, numerator):
    offset = Fraction(numerator, 2**53)
    counts = systematic_counts(weights, samples, np.array(float(offset)), tile_len)
    assert counts.sum() == samples
    assert (counts >= 0).all()
    reached, drawn = np.cumsum(counts).tolist(), 0
    for place, drawn in zip(distribution(weights)[1:], reached, strict=True):
        rounding = Fraction(len(weights) + 2, 2**52) * samples * place
        assert floor(offset + samples * place - rounding) <= drawn <= floor(offset + samples * place + rounding)


@pytest.mark.parametrize(
    "draw", [lambda s: systematic_counts(np.ones(3), s, 0.5), lambda s: largest_remainder([1.0], s)]
)
def test_more_than_two_to_the_32_draws_are_refused(draw):
    assert draw(2**32).sum() == 2**32
    for call in (draw, Santa):
        with pytest.raises(
            ValueError, match=r"num_samples=4294967297 was given: pass at most 2\^32 = 4294967296 draws"
        ):
            call(2**32 + 1)


@pytest.mark.parametrize("tokens", [10, 1000])
def test_strata_draw_only_tokens_that_they_meet(tokens):
    weights = np.full(tokens, 0.1)  # a stratum is a token, and each is drawn once
    for point in (0.0, 0.5, np.nextafter(1.0, 0.0)):
        np.testing.assert_array_equal(stratified_counts(weights, np.full(tokens, point)), np.ones(tokens))
    assert stratified_spread(weights, np.arange(tokens)[:, None], tokens).variance == 0


@given(LAWS, st.integers(1, 40), st.integers(0, 10**6))
def test_draws_of_strata_follow_their_law(weights, samples, seed):
    law, points = stratum_laws(weights, samples), np.random.default_rng(seed).random((50, samples))
    drawn = strata_of(np.asarray(weights, dtype=float), samples).draw(points)
    assert (law[np.arange(samples), drawn] > 0).all()
    ends = np.cumsum(law, axis=1)
    above = np.take_along_axis(ends, drawn.T, axis=1).T
    below = above - law[np.arange(samples), drawn]
    assert ((below - 1e-9 <= points) & (points <= above + 1e-9)).all()
