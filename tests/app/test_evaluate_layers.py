"""Each layer is measured on its own arrays with its own key, and an error bar has the width of one standard error."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import pytest

from socket_theory import Budget, HardLSH, Key, Santa, Socket
from socket_theory.evaluate.accuracy import evaluate_attention, measure_layer
from socket_theory.evaluate.capture import Capture
from socket_theory.evaluate.contenders import Contender
from socket_theory.evaluate.layers import each_layer, mean_of_heads
from socket_theory.evaluate.ranking import RankingSize, evaluate_ranking, run_trial
from socket_theory.evaluate.replayed_step import MEASURES
from socket_theory.evaluate.sampled_attention import evaluate_sampling, sampled_field
from socket_theory.evaluate.sampled_attention import measure_layer as measure_sampled
from socket_theory.evaluate.sampling_variance import SAMPLERS, variance_curves
from socket_theory.santa.law import prop_bias

DRAW = Key.from_seed(2).generator()
CAPTURE = Capture(
    q=DRAW.normal(size=(5, 4, 3, 8)),
    k=DRAW.normal(size=(5, 2, 40, 8)).astype(np.float16),
    v=DRAW.normal(size=(5, 2, 40, 8)).astype(np.float16),
    positions=np.array([20, 29, 39]),
)
BUDGET = Budget(tokens=8)


def seen(*arguments: Any) -> tuple[Any, ...]:
    return arguments


def run(seed: int, layers: list[int] | None = None) -> list[tuple[Any, ...]]:
    return each_layer(seen, CAPTURE, layers, "more", seed=seed, on_layer=lambda: None)


def test_a_layer_is_measured_on_its_own_arrays() -> None:
    for layers in (None, [3, 1]):
        for layer, (q, k, v, positions, more, _) in zip(layers or range(5), run(0, layers), strict=True):
            for found, name in ((q, "q"), (k, "k"), (v, "v")):
                np.testing.assert_array_equal(found, getattr(CAPTURE, name)[layer])
            np.testing.assert_array_equal(positions, CAPTURE.positions)
            assert more == "more"


def test_no_two_layers_or_seeds_share_a_key_and_a_chosen_layer_keeps_its_own() -> None:
    keys = [arguments[-1] for seed in (0, 1, -1) for arguments in run(seed)]
    assert len(set(keys)) == 15
    assert [arguments[-1] for arguments in run(0, [3, 1])] == [keys[3], keys[1]]


def test_indexes_of_other_sizes_or_centres_are_not_shared() -> None:
    """Each contender errs as it does alone: an index that is shared wrongly answers for another method."""
    methods = [
        HardLSH(4, 6),
        HardLSH(4, 30),
        HardLSH(8, 6),
        Socket(4, 6),
        Socket(4, 30),
        Socket(4, 6, center_keys=True),
    ]
    methods += [Socket(4, 6, value_weight=True), Socket(4, 6, value_weight=True, center_keys=True)]
    field = [Contender(str(method), method) for method in methods]
    layer = (CAPTURE.q[0], CAPTURE.k[0], CAPTURE.v[0], CAPTURE.positions)
    together, bits = measure_layer(*layer, field, BUDGET, Key.from_seed(0))
    for row, contender in enumerate(field):
        alone, own = measure_layer(*layer, [contender], BUDGET, Key.from_seed(0))
        np.testing.assert_array_equal(together[row], alone[0])
        assert bits[row] == own[0]
        assert bits[row][0] == contender.method.nominal_bits


def test_a_centre_is_the_float64_mean_of_the_keys_up_to_the_first_position() -> None:
    k = CAPTURE.k[0].copy()
    k[:, :21] += np.float16(300.0)
    method = Socket(4, 30, center_keys=True)
    field = [Contender("socket", method)]
    key, (q, v) = Key.from_seed(0), (CAPTURE.q[0], CAPTURE.v[0])
    measured, _ = measure_layer(q, k, v, CAPTURE.positions, field, BUDGET, key)
    planes = method.prepare(k, v, key=key).sample
    center = k[:, :21].astype(np.float64).mean(axis=1)
    cache = method.prepare(k, v, sample=planes, center=center)
    for time, position in enumerate(CAPTURE.positions):
        estimate = method.attend(q[:, time], cache.truncate(position + 1), budget=BUDGET, out_dtype=np.float64)
        np.testing.assert_array_equal(measured[0, :, time, 0], estimate.stats.density)
        for head, kept in enumerate(estimate.indices):
            logits = k[head // 2, : position + 1].astype(float) @ q[head, time] / np.sqrt(8)
            weights = np.exp(logits - logits.max())
            assert measured[0, head, time, 1] == pytest.approx(weights[kept].sum() / weights.sum())


def test_the_error_bar_is_one_standard_error_over_heads_of_layers() -> None:
    measured = DRAW.normal(size=(3, 4, 5))
    units = [float(np.mean(head)) for layer in measured for head in layer]
    mean, error = mean_of_heads(measured)
    assert mean == pytest.approx(statistics.fmean(units))
    assert error == pytest.approx(statistics.stdev(units) / 12**0.5)


def test_a_row_has_the_quantile_and_the_bar_of_its_errors() -> None:
    field = [Contender("socket", Socket(4, 6))]
    (row,) = evaluate_attention(CAPTURE, BUDGET, field=field, seed=4)
    errors = np.stack(
        [
            each_layer(measure_layer, CAPTURE, [n], field, BUDGET, seed=4, on_layer=lambda: None)[0][0][0]
            for n in range(5)
        ]
    )[..., 3]
    units = errors.mean(axis=-1).ravel().tolist()
    assert row.standard_error == pytest.approx(statistics.stdev(units) / 20**0.5)
    ordered = np.sort(errors.ravel())
    place = 0.9 * (len(ordered) - 1)
    low = int(place)
    assert row.relative_error_p90 == pytest.approx(ordered[low] + (place - low) * (ordered[low + 1] - ordered[low]))


def test_the_range_of_slopes_is_that_of_eight_heads_in_ten_each_the_mean_of_its_positions() -> None:
    samples, powers = [32, 128], np.linspace(-2, -1, 21)
    wobble = np.linspace(-0.3, 0.3, 21)[::-1, None] * np.array([1, -1])  # of one head's first and second position
    relative = np.array(samples) ** (powers[:, None] + wobble)[..., None]
    shaped = np.broadcast_to(relative[None, :, :, None], (1, 21, 2, len(SAMPLERS), 2))
    for curve in variance_curves(shaped, samples):
        assert (curve.slope_p10, curve.slope_p90) == (pytest.approx(-1.9), pytest.approx(-1.1))
        assert curve.slope_standard_error == pytest.approx(statistics.stdev(powers.tolist()) / 21**0.5)


def test_trials_of_a_ranking_are_different_draws_and_their_bar_is_one_standard_error() -> None:
    size, methods = RankingSize(num_keys=60, head_dim=8, num_trials=4, num_queries=2), [HardLSH(3, 8)]
    (row,) = evaluate_ranking(methods, [5, 20], size, seed=-3)
    trials = [run_trial(methods, [5, 20], size, Key.from_seed(-3).fold_in("trial", i))[0] for i in range(4)]
    for place in range(2):
        precision = [float(trial[place, 0]) for trial in trials]
        assert row.means["precision"][place] == pytest.approx(statistics.fmean(precision))
        assert row.standard_errors["precision"][place] == pytest.approx(statistics.stdev(precision) / 2)
    (other,) = evaluate_ranking(methods, [5, 20], size, seed=3)
    assert other.means != row.means


def test_a_row_of_samplers_has_the_quantile_and_the_bar_of_its_errors() -> None:
    field = sampled_field()
    ((measures, _),) = each_layer(measure_sampled, CAPTURE, [3], field, seed=4, on_layer=lambda: None)
    rows, _ = evaluate_sampling(CAPTURE, seed=4, layers=[3])
    for place, row in enumerate(rows):
        errors = measures[place][..., MEASURES.index("relative_error")]
        units = errors.mean(axis=-1).ravel().tolist()
        assert row.relative_error_mean == pytest.approx(statistics.fmean(units))
        assert row.standard_error == pytest.approx(statistics.stdev(units) / 2)
        assert row.relative_error_p90 == pytest.approx(np.percentile(errors, 90))


def test_the_bias_of_prop_is_finite_where_a_tile_has_no_mass() -> None:
    k = np.zeros((2, 40, 8))
    k[:, 7:14, 0] = -1e4
    q, v = np.full((4, 3, 8), 1.0), CAPTURE.v[0]
    method = Santa(8, "biased_prop", tile_len=7)
    measured, _ = measure_sampled(q, k, v, CAPTURE.positions, [method], Key.from_seed(0))
    weights = (k[0, :, 0] == 0).astype(float)
    for head in range(4):
        for time, position in enumerate(CAPTURE.positions):
            rows, law = v[head // 2, : position + 1].astype(float), weights[: position + 1]
            bias = prop_bias(law, rows, 8, 7)
            exact = np.linalg.norm(bias) / np.linalg.norm(law @ rows / law.sum())
            assert measured[0, head, time, MEASURES.index("relative_bias")] == pytest.approx(exact)
