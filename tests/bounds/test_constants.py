"""Every constant of a bound: its value against the formula worked out with `math` from numbers alone.

An inverse that is tested against its own radius cannot see a constant that is wrong in both.
"""

from __future__ import annotations

import math
import pkgutil
import statistics
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

import socket_theory
from socket_theory.bounds.concentration import (
    bernstein_count,
    bernstein_failure,
    bernstein_radius,
    bernstein_terms,
    hoeffding_count,
    hoeffding_failure,
    hoeffding_radius,
    hoeffding_terms,
    two_point_count,
    two_point_failure,
    two_point_radius,
    two_point_tail,
    two_point_terms,
)
from socket_theory.bounds.end_to_end import end_to_end
from socket_theory.bounds.importance import SamplingSpread, plain_spread, value_aware_spread
from socket_theory.bounds.large_deviations import TiltedLaw
from socket_theory.bounds.ranking import (
    misrank_bernstein,
    misrank_bernstein_tables,
    misrank_hoeffding,
    misrank_hoeffding_range,
    misrank_hoeffding_range_tables,
    misrank_tables,
)
from socket_theory.bounds.ratio import (
    bernstein_ratio_radius,
    bernstein_ratio_tables,
    chebyshev_radius,
    chebyshev_tables,
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
from socket_theory.bounds.ratio_variance import variance_radius, variance_tables
from socket_theory.bounds.residual import ResidualMoments, residual_covariance, spare_table_moments
from socket_theory.bounds.residual_range import residual_range, residual_range_of_any_target
from socket_theory.bounds.spare_sets import spare_set_errors, spare_set_radius, spare_sets_needed
from socket_theory.bounds.top_k import captured_mass_for_error, top_k_error_bound
from socket_theory.core.thresholds import Moments, binomial_mean, bounded_mean, critical_count, failure_rate, tightness
from socket_theory.santa.bounds import (
    bennett_failure,
    koksma_radius,
    rounded_mass,
    rounded_mass_bound,
    sampling_failure,
    two_term_radius,
)
from socket_theory.santa.cost import (
    group_reads,
    iid_inclusion,
    stratified_inclusion,
    systematic_inclusion,
    tiled_inclusion,
)
from socket_theory.socket_lsh.bounds.residual_moments import weight_covariance
from socket_theory.socket_lsh.bounds.temperature import (
    kernel_bias_bound,
    output_bias_bound,
    temperature_for_bias,
    uniform_kernel_bias_bound,
    uniform_output_bias_bound,
)
from socket_theory.socket_lsh.bounds.temperature_choice import optimal_temperature, signal_to_noise
from socket_theory.socket_lsh.bounds.weight_range import collision_half_range, collision_reach, weight_bound
from socket_theory.socket_lsh.law import SoftKernel

DELTA, COUNT, T = 0.05, 40, 0.3
LN2, LN4, LN8 = (math.log(n / DELTA) for n in (2, 4, 8))
V, R = 0.2, 1.5  # variance and radius of a term
B, D, Z = 4.0, 1.5, 3.0  # weight bound, value radius, mass
TILTED = TiltedLaw(rate=0.1, steepness=0.8, asymmetry=1.3)
SPREAD = SamplingSpread(radius=R, variance=V)
MOMENTS = ResidualMoments(second=2.0, trace_square=3.0, fourth=11.0)
FOURTH = (11.0 + 39 * (2.0**2 + 2 * 3.0)) / 40**3
SQUARE_VARIANCE = (11.0 - 2.0**2 + 2 * 39 * 3.0) / 40**3
KERNEL, NORM = SoftKernel(3, 0.7, "tanh", 16), 2.0
GAP = float(KERNEL.temperature_gap(NORM))
ROWS = np.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0], [-2.0, 1.0]])
NORMS = [math.hypot(*row) for row in ROWS]


def bennett(excess: float) -> float:
    return (1 + excess) * math.log1p(excess) - excess


def coins(t: float, v: float, b: float) -> float:
    """The divergence of a coin of mean q from one of mean p."""
    q, p = (v + b * t) / (v + b * b), v / (v + b * b)
    return q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def upper(terms: list[float], order: int) -> float:
    return statistics.fmean(terms) + 2.5 * order * statistics.stdev(terms) / math.sqrt(len(terms))


def spread_of(terms: list[float], order: int) -> Any:
    return pytest.approx(upper(terms, order), rel=1e-12)


CONSTANTS: dict[str, tuple[Callable[[], Any], float]] = {
    "collision_half_range": (
        lambda: collision_half_range(KERNEL),
        (sigma(2 / 0.7) ** 3 - sigma(-2 / 0.7) ** 3) / 2,
    ),
    "hoeffding_failure": (
        lambda: hoeffding_failure(0.6, COUNT, R),
        2 * math.exp(-COUNT * 0.6**2 / (2 * R**2)),
    ),
    "hoeffding_radius": (lambda: hoeffding_radius(DELTA, COUNT, R), R * math.sqrt(2 * LN2 / COUNT)),
    "hoeffding_terms": (lambda: hoeffding_terms(T, DELTA, R), 2 * LN2 * (R / T) ** 2),
    "hoeffding_count": (lambda: hoeffding_count(T, DELTA, R), math.ceil(2 * LN2 * (R / T) ** 2)),
    "bernstein_failure": (
        lambda: bernstein_failure(0.6, COUNT, V, R),
        2 * math.exp(-COUNT * 0.6**2 / (2 * (V + R * 0.6 / 3))),
    ),
    "bernstein_radius": (
        lambda: bernstein_radius(DELTA, COUNT, V, R),
        R * LN2 / COUNT / 3 + math.sqrt((R * LN2 / COUNT / 3) ** 2 + 2 * V * LN2 / COUNT),
    ),
    "bernstein_terms": (lambda: bernstein_terms(T, DELTA, V, R), 2 * LN2 * (V / T**2 + R / (3 * T))),
    "bernstein_count": (
        lambda: bernstein_count(T, DELTA, V, R),
        math.ceil(2 * LN2 * (V / T**2 + R / (3 * T))),
    ),
    "two_point_tail": (lambda: two_point_tail(T, COUNT, V, R), math.exp(-COUNT * coins(T, V, R))),
    "two_point_failure": (
        lambda: two_point_failure(T, COUNT, V, R, 0.9),
        math.exp(-COUNT * coins(T, V, R)) + math.exp(-COUNT * coins(T, V, 0.9)),
    ),
    "two_point_radius": (
        lambda: two_point_radius(
            math.exp(-COUNT * coins(T, V, R)) + math.exp(-COUNT * coins(T, V, 0.9)), COUNT, V, R, 0.9
        ),
        T,
    ),
    "two_point_terms": (
        lambda: two_point_terms(T, 2 * math.exp(-7.5 * coins(T, V, R)), V, R, R),
        7.5,
    ),
    "two_point_count": (
        lambda: two_point_count(T, 2 * math.exp(-7.5 * coins(T, V, R)), V, R, R),
        8,
    ),
    "collision_reach": (
        lambda: sum(collision_reach(KERNEL, 1.1, NORM)),
        sigma(2 / 0.7) ** 3 - sigma(-2 / 0.7) ** 3,
    ),
    "residual_range": (
        lambda: residual_range((0.2, 0.8), [[3.0, 4.0], [1.0, 0.0]]),
        0.5 * math.sqrt(32) + 0.3 * min(6.0, math.sqrt(2 * (13 + math.sqrt(153)))),
    ),
    "residual_range_of_any_target": (
        lambda: residual_range_of_any_target((0.2, 0.8), [[0.0, 1.0], [0.0, 3.0], [0.0, 8.0]]),
        3 * (0.5 * 4 + 0.3 * math.sqrt(26 / 3 + 16)),
    ),
    "weight_bound": (lambda: weight_bound(KERNEL, 20), 20 * sigma(2 / 0.7) ** 3),
    "paper_condition_tables": (
        lambda: paper_condition_tables(DELTA, 50.0, Z),
        math.ceil(2 * (50 / Z) ** 2 * LN8),
    ),
    "normaliser_tables": (lambda: normaliser_tables(DELTA, 50.0, Z), math.ceil(2 * (50 / Z) ** 2 * LN2)),
    "normaliser_failure": (lambda: normaliser_failure(COUNT, Z, 12.0), math.exp(-COUNT * Z**2 / (8 * 12))),
    "normaliser_failure_tables": (
        lambda: normaliser_failure_tables(DELTA, Z, 500.0),
        math.ceil(8 * 500 / Z**2 * math.log(1 / DELTA)),
    ),
    "hoeffding_ratio_radius": (
        lambda: hoeffding_ratio_radius(DELTA, COUNT, B, D, Z),
        2 * B * D / Z * math.sqrt(2 * LN4 / COUNT),
    ),
    "hoeffding_ratio_tables": (
        lambda: hoeffding_ratio_tables(0.1, DELTA, B, D, Z),
        math.ceil(8 * (B * D / (Z * 0.1)) ** 2 * LN4),
    ),
    "plug_in_radius": (
        lambda: plug_in_radius(DELTA, COUNT, B * D, Z),
        B * D / Z * math.sqrt(2 * LN2 / COUNT),
    ),
    "plug_in_tables": (
        lambda: plug_in_tables(0.1, DELTA, B * D, Z),
        math.ceil(2 * (B * D / (Z * 0.1)) ** 2 * LN2),
    ),
    "bernstein_ratio_radius": (
        lambda: bernstein_ratio_radius(DELTA, COUNT, V, B * D, Z),
        (B * D * LN2 / COUNT / 3 + math.sqrt((B * D * LN2 / COUNT / 3) ** 2 + 2 * V * LN2 / COUNT)) / Z,
    ),
    "bernstein_ratio_tables": (
        lambda: bernstein_ratio_tables(0.1, DELTA, V, B * D, Z),
        math.ceil(2 * LN2 * (V / (0.1 * Z) ** 2 + B * D / (3 * 0.1 * Z))),
    ),
    "chebyshev_radius": (
        lambda: chebyshev_radius(DELTA, COUNT, V, Z),
        math.sqrt(V / COUNT / DELTA) / Z,
    ),
    "chebyshev_tables": (lambda: chebyshev_tables(0.01, DELTA, V, Z), math.ceil(V / (Z * 0.01) ** 2 / DELTA)),
    "mean_fourth": (lambda: MOMENTS.mean_fourth(COUNT), FOURTH),
    "fourth_moment_radius": (
        lambda: fourth_moment_radius(DELTA, COUNT, MOMENTS, Z),
        (FOURTH / DELTA) ** 0.25 / Z,
    ),
    "mean_square_variance": (lambda: MOMENTS.mean_square_variance(COUNT), SQUARE_VARIANCE),
    "variance_radius": (
        lambda: variance_radius(DELTA, COUNT, MOMENTS, Z),
        math.sqrt(2.0 / COUNT + math.sqrt(SQUARE_VARIANCE * 19)) / Z,
    ),
    "variance_tables": (
        lambda: variance_tables(T, DELTA, MOMENTS, Z),
        next(n for n in range(2, 99) if 2 / n + math.sqrt(19 * (7 + 6 * (n - 1)) / n**3) <= (T * Z) ** 2),
    ),
    "spare_sets_needed": (lambda: spare_sets_needed(DELTA), 19),
    "spare_set_errors": (
        lambda: spare_set_errors(ROWS, np.array([1.0, 3.0, 4.0, 8.0]), 4)[0],
        math.hypot(2.5 / 4, 2.0 / 4) / 4,
    ),
    "spare_set_radius": (lambda: spare_set_radius(2 / 21, np.arange(40.0)), 37.0),  # the third of 41
    "residual_covariance": (
        lambda: np.trace(residual_covariance(np.diag([1.0, 2.0, 3.0, 4.0]), ROWS)),
        sum((place + 1) * norm**2 for place, norm in enumerate(NORMS)),
    ),
    "misrank_hoeffding": (lambda: misrank_hoeffding(T, COUNT), math.exp(-COUNT * T**2 / 2)),
    "misrank_hoeffding_range": (
        lambda: misrank_hoeffding_range(T, COUNT, 0.7),
        math.exp(-COUNT * T**2 / (2 * 0.7**2)),
    ),
    "misrank_bernstein": (
        lambda: misrank_bernstein(T, COUNT, V, 0.7),
        math.exp(-COUNT * T**2 / (2 * (V + (0.7 + T) * T / 3))),
    ),
    "misrank_tables": (lambda: misrank_tables(0.03, DELTA), math.ceil(2 / 0.03**2 * math.log(1 / DELTA))),
    "misrank_hoeffding_range_tables": (
        lambda: misrank_hoeffding_range_tables(0.03, DELTA, 0.7),
        math.ceil(2 * (0.7 / 0.03) ** 2 * math.log(1 / DELTA)),
    ),
    "misrank_bernstein_tables": (
        lambda: misrank_bernstein_tables(0.03, DELTA, V, 0.7),
        math.ceil(2 * (V / 0.03**2 + 0.73 / (3 * 0.03)) * math.log(1 / DELTA)),
    ),
    "tilted.chernoff": (lambda: TILTED.chernoff(COUNT), math.exp(-COUNT * 0.1)),
    "tilted.chernoff_tables": (lambda: TILTED.chernoff_tables(DELTA), math.ceil(math.log(1 / DELTA) / 0.1)),
    "tilted.bahadur_rao": (
        lambda: TILTED.bahadur_rao(COUNT),
        math.exp(-COUNT * 0.1) * (1 / (0.8 * math.sqrt(2 * math.pi)) + 2 * 0.4748 * 1.3) / math.sqrt(COUNT),
    ),
    "tilted.saddlepoint": (
        lambda: TILTED.saddlepoint(COUNT),
        math.exp(-COUNT * 0.1 + 0.64 * COUNT / 2) * statistics.NormalDist().cdf(-0.8 * math.sqrt(COUNT)),
    ),
    "spread.hoeffding": (lambda: SPREAD.hoeffding(DELTA, COUNT), R * math.sqrt(2 * LN2 / COUNT)),
    "spread.hoeffding_samples": (lambda: SPREAD.hoeffding_samples(T, DELTA), math.ceil(2 * LN2 * (R / T) ** 2)),
    "spread.bernstein": (
        lambda: SPREAD.bernstein(DELTA, COUNT),
        R * LN2 / COUNT / 3 + math.sqrt((R * LN2 / COUNT / 3) ** 2 + 2 * V * LN2 / COUNT),
    ),
    "spread.bernstein_samples": (
        lambda: SPREAD.bernstein_samples(T, DELTA),
        math.ceil(2 * LN2 * (V / T**2 + R / (3 * T))),
    ),
    "sampling_failure": (
        lambda: sampling_failure(0.6, COUNT, SPREAD),
        2 * math.exp(-COUNT * 0.6**2 / (2 * (V + R * 0.6 / 3))),
    ),
    "bennett_failure": (
        lambda: bennett_failure(0.6, COUNT, SPREAD),
        2 * math.exp(-COUNT * V / R**2 * bennett(R * 0.6 / V)),
    ),
    "two_term_radius": (
        lambda: two_term_radius(DELTA, COUNT, SPREAD),
        math.sqrt(2 * V * LN2 / COUNT) + 2 * R * LN2 / COUNT / 3,
    ),
    "rounded_mass": (lambda: rounded_mass(np.array([0.6, 0.4]), 1), 0.4),
    "rounded_mass_bound": (lambda: rounded_mass_bound(8, 5), 8 / 20),
    "koksma_radius": (
        lambda: koksma_radius(ROWS, 5),
        sum(math.dist(ROWS[j], ROWS[j + 1]) for j in range(3)) / 5,
    ),
    "iid_inclusion": (lambda: iid_inclusion(np.array([1.0, 3.0]), 3)[0], 1 - 0.75**3),
    "stratified_inclusion": (lambda: stratified_inclusion(np.array([1.0, 3.0]), 3)[0], 0.75),
    "systematic_inclusion": (lambda: systematic_inclusion(np.array([1.0, 3.0]), 3)[0], 0.75),
    "tiled_inclusion": (lambda: tiled_inclusion(np.array([1.0, 3.0, 2.0]), 2, np.array([3, 1]))[0], 0.75),
    "group_reads": (lambda: group_reads(np.array([[0.5, 0.1], [0.2, 0.3]])), 1 - 0.5 * 0.8 + 1 - 0.9 * 0.7),
    "kernel_bias_bound": (
        lambda: kernel_bias_bound(KERNEL, 1.0, NORM),
        3
        * max(float(KERNEL.bit_mean(1.0, NORM)), 1 - 1 / math.pi) ** 2
        * abs(float(KERNEL.bit_mean(1.0, NORM)) - 1 + 1 / math.pi),
    ),
    "uniform_kernel_bias_bound": (lambda: uniform_kernel_bias_bound(KERNEL, NORM), 3 * GAP),
    "temperature_for_bias": (lambda: temperature_for_bias(3 * GAP, NORM, 3, "tanh", 16), 0.7),
    "output_bias_bound": (
        lambda: output_bias_bound([0.5, 0.3], [0.4, 0.35], D),
        D * (0.1 + 0.05) / (0.5 + 0.3),
    ),
    "uniform_output_bias_bound": (
        lambda: uniform_output_bias_bound(KERNEL, NORM, 20, Z, D),
        D * 20 * 3 * GAP / Z,
    ),
    "top_k_error_bound": (lambda: top_k_error_bound(0.7, D), 0.3 * D),
    "captured_mass_for_error": (lambda: captured_mass_for_error(0.3, D), 1 - 0.3 / D),
    "end_to_end": (
        lambda: end_to_end(0.1, finite_tables=lambda d: d, temperature=0.7, sampling=lambda d: 2 * d).total,
        0.05 + 0.1 + 0.7,
    ),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_bound_has_the_value_of_its_formula(name: str) -> None:
    call, expected = CONSTANTS[name]
    assert float(call()) == pytest.approx(expected, rel=1e-9)


def public_bounds() -> Iterator[str]:
    """The public functions and classes of `bounds`, of each family's bounds and of its costs."""
    for found in pkgutil.walk_packages(socket_theory.__path__, "socket_theory."):
        if {"bounds", "cost"} & set(found.name.split(".")):
            for name, thing in vars(import_module(found.name)).items():
                if not name.startswith("_") and getattr(thing, "__module__", None) == found.name:
                    yield name


def test_every_public_bound_has_its_formula_here_or_a_test_of_its_own() -> None:
    elsewhere = {
        "DecodeShape",
        "ErrorTerms",
        "KeyScores",  # by hand in tests/bounds/test_recall.py
        "RecallEstimate",
        "ResidualMoments",
        "SamplingSpread",
        "TiltedLaw",
        "TemperatureChoice",
        "bernstein_entry_radius",  # by hand in tests/race, as the other bounds of RACE
        "causal_fourth_moment_radius",
        "causal_moment_radius",
        "causal_plug_in_radius",
        "diameters_so_far",
        "empirical_bernstein_radius",  # tests/bounds/test_empirical_bernstein.py
        "entrywise_radius",
        "first_order_bit_bias",
        "flash_spread",  # by hand in tests/santa/test_bounds.py, as the other spreads
        "hoeffding_entry_radius",
        "mean_square_error",
        "optimal_beta",
        "optimal_temperature",
        "paper_row_radius",
        "pair_difference",  # tests/socket_lsh/test_pair_difference.py
        "plain_spread",
        "prop_spread",
        "row_shares",
        "signal_to_noise",  # published values in tests/socket_lsh/test_temperature.py
        "spare_table_moments",
        "stratified_spread",
        "stream_shares",
        "table_residuals",
        "value_aware_spread",
        "weight_covariance",
    }
    public = set(public_bounds())
    assert elsewhere < public
    assert public - elsewhere <= set(CONSTANTS)


def test_a_hand_made_law_attains_the_koksma_radius_and_the_bias_bound() -> None:
    """Two rows of equal mass, one draw: the only row drawn is half a step off; one biased key: the whole bound."""
    assert koksma_radius([[0.0], [1.0]], 1) == 1
    assert output_bias_bound([1.0], [0.4], 1.0) == pytest.approx(0.6)


def test_spare_moments_add_standard_errors_of_terms_and_of_a_u_statistic() -> None:
    squares = [norm**2 for norm in NORMS]
    partners = [sum(float(x @ y) ** 2 for j, y in enumerate(ROWS) if j != i) / 3 for i, x in enumerate(ROWS)]
    found = spare_table_moments(ROWS, 2.5)
    assert found.second == spread_of(squares, 1)
    assert found.trace_square == spread_of(partners, 2)
    assert found.fourth == spread_of([square**2 for square in squares], 1)
    strays = [(square - statistics.fmean(squares)) ** 2 * 4 / 3 for square in squares]
    assert found.square_variance == spread_of(strays, 1)


def test_value_aware_draws_have_the_spread_worked_out_by_hand() -> None:
    """Rows of norm 1 and 3 with weights 3 and 1: both are drawn with probability 1/2, as -3/2 and 3/2."""
    spread = value_aware_spread(np.array([3.0, 1.0]), np.array([[-1.0], [3.0]]))
    assert (spread.radius, spread.variance) == (1.5, 2.25)
    plain = plain_spread(np.array([3.0, 1.0]), np.array([[-1.0], [3.0]]))
    assert (plain.radius, plain.variance) == (3.0, 3.0)


def test_the_variance_of_one_weight_is_on_the_diagonal() -> None:
    theta, apart = np.array([0.5, 1.2]), np.array([[0.0, 1.0], [1.0, 0.0]])
    covariance = weight_covariance(KERNEL, theta, apart, NORM)
    np.testing.assert_allclose(np.diag(covariance), KERNEL.second_moment(theta, NORM) - KERNEL.mean(theta, NORM) ** 2)


@pytest.mark.parametrize(("near", "far", "finite"), [(0.5, 1.0, True), (0.8, 1.2, True), (1.0, 1.3, False)])
def test_only_a_flat_maximum_is_called_infinite(near: float, far: float, finite: bool) -> None:
    """The sign sketch comes within 1.3 %, .17 % and nothing of the best temperature; .1 % counts as flat."""
    apart = math.acos(math.cos(near) * math.cos(far))
    best = optimal_temperature(near, far, apart, 11.0, num_planes=10, query_map="tanh", head_dim=128)
    assert math.isfinite(best.temperature) == finite
    at = SoftKernel(10, min(best.temperature, 1e9), "tanh", 128)
    assert best.value == pytest.approx(float(signal_to_noise(at, near, far, apart, 11.0)), rel=1e-9)


def test_thresholds_of_claims_spend_the_level_they_are_given() -> None:
    level = 1e-8
    assert failure_rate(3, 500, DELTA, level).allowed == binom.isf(level, 500, DELTA) / 500
    moments = Moments.of(np.array([[0.1, -0.2], [0.3, 0.0], [-0.1, 0.1]]))
    held = bounded_mean(moments, [0.0, 0.0], V, R, level)
    excess = R * held.allowed / V
    assert 2 * math.exp(-3 * V / R**2 * bennett(excess)) == pytest.approx(level / 2, rel=1e-9)
    one, both = binomial_mean(30, 100, 0.2, level), binomial_mean([30, 30], 100, 0.2, level)
    assert one.allowed == pytest.approx(critical_count(0.2, 100, level / 2) / 100 - 0.2)
    assert both.allowed == pytest.approx(critical_count(0.2, 100, level / 4) / 100 - 0.2)


def test_tightness_takes_the_quantile_from_above() -> None:
    """Of ten errors the .95 quantile lies between the two largest, and the larger one counts."""
    errors = np.arange(1.0, 11.0)
    assert tightness(20.0, errors, DELTA) == 2
