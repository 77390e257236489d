"""Sampled values and scores on captures: what is replayed is what the methods do, and its variance is exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from socket_theory.core.attention import softmax_attention
from socket_theory.core.baselines import Dense
from socket_theory.core.rng import Key
from socket_theory.core.step import Step
from socket_theory.evaluate.capture import Capture
from socket_theory.evaluate.replayed_step import MEASURES, ReplayedStep, Sampled
from socket_theory.evaluate.sampled_attention import (
    NUM_SAMPLES,
    SampledRow,
    evaluate_sampling,
    measure_layer,
    sampled_field,
)
from socket_theory.santa.bernoulli import Bernoulli
from socket_theory.santa.estimator import Santa
from socket_theory.santa.law import iid_covariance, prop_bias, stratified_covariance, systematic_covariance

KEY = Key.from_seed(11)
ROWS, GROUP_ROWS, KEY_SHARE, BYTES, BIAS, ERROR = range(len(MEASURES))


def capture(layers: int = 2, context: int = 600, seed: int = 3) -> Capture:
    """Two heads a KV head over more than two tiles, attention on some tens of tokens."""
    draw = Key.from_seed(seed).generator()
    return Capture(
        q=1.5 * draw.normal(size=(layers, 4, 2, 16)),
        k=draw.normal(size=(layers, 2, context, 16)).astype(np.float16),
        v=draw.normal(size=(layers, 2, context, 16)).astype(np.float16),
        positions=np.array([context // 2, context - 9]),
    )


def replayed(data: Capture, field: list[Sampled]) -> tuple[Step, ReplayedStep]:
    """The last position of the first layer."""
    n = int(data.positions[-1]) + 1
    k, v = data.k[0, :, :n], data.v[0, :, :n]
    step = Step(data.q[:1, :, -1], Dense().prepare(k, v), 1 / np.sqrt(k.shape[-1]))
    return step, ReplayedStep.of(step, k.astype(float), v.astype(float), field, KEY)


@pytest.fixture(scope="module")
def rows() -> list[SampledRow]:
    return evaluate_sampling(capture(), seed=5)[0]


def of(rows: list[SampledRow], method: str, **settings: object) -> list[SampledRow]:
    return [row for row in rows if row.method == method and row.settings.items() >= settings.items()]


@pytest.mark.parametrize("method", sampled_field(), ids=str)
def test_a_replayed_draw_is_that_of_attend(method: Sampled) -> None:
    """Outputs, rows and bytes of the public method with the same key; a Bernoulli query has its own."""
    data = capture(layers=1)
    n = int(data.positions[-1]) + 1
    _, step = replayed(data, [method])
    measured = step.measure(method)
    cache = method.prepare(data.k[0, :, :n], data.v[0, :, :n])
    key = KEY.fold_in("query") if method.scoring is method else KEY
    estimate = method.attend(data.q[0, :, -1], cache, key=key, out_dtype=np.float64)
    exact = np.stack(
        [
            softmax_attention(q, data.k[0, h // 2, :n], data.v[0, h // 2, :n]).value
            for h, q in enumerate(data.q[0, :, -1])
        ]
    )
    error = np.linalg.norm(estimate.value - exact, axis=-1) / np.linalg.norm(exact, axis=-1)
    np.testing.assert_allclose(measured[:, ERROR], error, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(measured[:, ROWS], estimate.stats.kept)
    dense = 2 * n * 2 * 16 * 2
    saved = n * 2 * 16 * 2 * (1 - measured[::2, KEY_SHARE].mean())
    assert measured[0, BYTES] == pytest.approx((estimate.stats.bytes - saved) / dense)
    assert (measured[:, BYTES] == measured[0, BYTES]).all()


def test_a_kv_head_reads_what_any_of_its_heads_drew() -> None:
    method = Santa(64)
    data = capture(layers=1)
    n = int(data.positions[-1]) + 1
    measured = replayed(data, [method])[1].measure(method)
    drawn = method.attend(data.q[0, :, -1], method.prepare(data.k[0, :, :n], data.v[0, :, :n]), key=KEY).indices
    union = [len({*drawn[2 * head], *drawn[2 * head + 1]} - {-1}) for head in range(2)]
    np.testing.assert_array_equal(measured[:, GROUP_ROWS], np.repeat(union, 2))
    assert (measured[:, GROUP_ROWS] > measured[:, ROWS]).any()


def test_key_features_count_once_a_group_and_only_where_they_fire() -> None:
    data = capture(layers=1)
    field: list[Sampled] = [Bernoulli(4), Bernoulli(4, shared_query=True), Santa(32)]
    for method in field:
        step, replay = replayed(data, [method])
        share = replay.measure(method)[:, KEY_SHARE]
        if method.scoring is None:
            np.testing.assert_array_equal(share, 1)
            continue
        fires = np.asarray(method.scoring.sample_query(step, KEY.fold_in("query")))[0] != 0
        np.testing.assert_allclose(share, np.repeat((fires[::2] | fires[1::2]).mean(axis=-1), 2))
        assert (share < 1).any()


def test_the_bias_is_that_of_prop_alone() -> None:
    data = capture(layers=1)
    n = int(data.positions[-1]) + 1
    field: list[Sampled] = [Santa(32, sampler) for sampler in ("iid", "stratified", "phase_carried", "flash")]
    prop = Santa(32, "biased_prop")
    _, step = replayed(data, [*field, prop, Bernoulli()])
    for method in field:
        np.testing.assert_array_equal(step.measure(method)[:, BIAS], 0)
    assert np.isnan(step.measure(Bernoulli())[:, BIAS]).all()
    for head, relative in enumerate(step.measure(prop)[:, BIAS]):
        k, v = data.k[0, head // 2, :n].astype(float), data.v[0, head // 2, :n].astype(float)
        weights = np.exp(k @ data.q[0, head, -1] / 4)
        bias = prop_bias(weights, v, 32, 256)
        assert relative == pytest.approx(np.linalg.norm(bias) / np.linalg.norm(weights @ v / weights.sum()))
        assert relative > 0


def test_the_variances_are_the_traces_of_the_exact_covariances() -> None:
    data = capture(layers=1)
    _, relative = measure_layer(data.q[0], data.k[0], data.v[0], data.positions, [Santa(32)], KEY)
    laws = (iid_covariance, stratified_covariance, systematic_covariance)
    for head in range(4):
        for time, position in enumerate(data.positions):
            k, v = (part[0, head // 2, : position + 1].astype(float) for part in (data.k, data.v))
            weights = np.exp(k @ data.q[0, head, time] / 4)
            square = np.sum((weights @ v / weights.sum()) ** 2)
            exact = [[np.trace(law(weights, v, samples)) / square for samples in NUM_SAMPLES] for law in laws]
            np.testing.assert_allclose(relative[head, time], exact, rtol=1e-9, atol=1e-14)


def test_the_rows_are_every_sampler_with_every_number_of_draws(rows: list[SampledRow]) -> None:
    assert [row.method for row in rows] == ["santa"] * 30 + ["bernoulli"] * 9 + ["bernoulli_santa"] * 6
    for sampler in ("iid", "stratified", "phase_carried", "flash", "biased_prop"):
        found = of(rows, "santa", sampler=sampler)
        assert [row.settings["num_samples"] for row in found] == list(NUM_SAMPLES)
    assert len({str(row.settings) for row in rows}) == 45


def test_more_draws_read_more_rows_and_err_less(rows: list[SampledRow]) -> None:
    for sampler in ("iid", "stratified", "phase_carried", "flash", "biased_prop"):
        found = of(rows, "santa", sampler=sampler)
        errors = [row.relative_error_mean for row in found]
        assert errors == sorted(errors, reverse=True)
        for name in ("rows_per_head", "rows_per_kv_head", "bytes_share"):
            values = [getattr(row, name) for row in found]
            assert values == sorted(values)
        assert all(row.rows_per_head <= row.rows_per_kv_head <= 2 * row.rows_per_head for row in found)
        if sampler != "flash":
            assert all(row.rows_per_head <= row.settings["num_samples"] for row in found)


def test_a_sampler_that_draws_independently_errs_more_than_a_systematic_one(rows: list[SampledRow]) -> None:
    iid, systematic = (of(rows, "santa", sampler=name)[-1] for name in ("iid", "phase_carried"))
    assert systematic.relative_error_mean < iid.relative_error_mean / 1.3


def test_the_bias_of_a_row_is_known_or_absent(rows: list[SampledRow]) -> None:
    assert {row.relative_bias for row in rows if row.method != "santa"} == {None}
    for row in of(rows, "santa"):
        assert row.relative_bias is not None
        assert (row.relative_bias > 0) == (row.settings["sampler"] == "biased_prop")


def test_more_vectors_bring_the_scores_closer_and_read_more_features(rows: list[SampledRow]) -> None:
    for settings in ({"query_sampler": "iid"}, {"query_sampler": "stratified", "shared_query": False}):
        found = of(rows, "bernoulli", **settings)
        assert [row.settings["num_vectors"] for row in found] == [4, 16, 64]
        assert found[0].relative_error_mean > found[1].relative_error_mean > found[2].relative_error_mean
        assert found[0].key_share < found[1].key_share <= found[2].key_share <= 1
    assert {row.rows_per_head for row in of(rows, "bernoulli")} == {446.5}


def test_nothing_behind_a_position_is_seen() -> None:
    data = capture(layers=1)
    field = sampled_field()
    before, variance = measure_layer(data.q[0], data.k[0], data.v[0], data.positions, field, KEY)
    k, v = data.k[0].copy(), data.v[0].copy()
    k[:, data.positions[0] + 1 :] *= -2
    v[:, data.positions[0] + 1 :] += 1
    after, other = measure_layer(data.q[0], k, v, data.positions, field, KEY)
    np.testing.assert_array_equal(before[:, :, 0], after[:, :, 0])
    np.testing.assert_array_equal(variance[:, 0], other[:, 0])
    assert (before[:, :, 1, ERROR] != after[:, :, 1, ERROR]).all()


def test_the_seed_decides_every_draw_and_no_exact_number(rows: list[SampledRow]) -> None:
    again, curves = evaluate_sampling(capture(), seed=5)
    other, same = evaluate_sampling(capture(), seed=6)
    assert again == rows
    assert curves == same
    for row, redrawn in zip(rows, other, strict=True):
        assert row.relative_error_mean != redrawn.relative_error_mean
        assert row.relative_bias == redrawn.relative_bias


def test_layers_can_be_chosen(rows: list[SampledRow]) -> None:
    one, two = (evaluate_sampling(capture(), seed=5, layers=[layer])[0] for layer in (0, 1))
    for whole, first, second in zip(rows, one, two, strict=True):
        assert whole.relative_error_mean == pytest.approx((first.relative_error_mean + second.relative_error_mean) / 2)
    with pytest.raises(ValueError, match=r"layers=\[0, 2\] were given: pass some of 0 to 1"):
        evaluate_sampling(capture(), layers=[0, 2])


def test_one_token_with_all_the_mass_is_read_alone_and_without_error() -> None:
    data = capture(layers=1)
    k = np.zeros_like(data.k)
    k[..., 7, :] = 1
    peaked = replace(data, q=np.full_like(data.q, 60.0), k=k)
    for row in of(evaluate_sampling(peaked)[0], "santa"):
        assert row.relative_error_mean < 1e-12
        if row.settings["sampler"] != "flash":
            assert row.rows_per_head == row.rows_per_kv_head == 1


def test_zero_values_give_zero_error_and_no_slope() -> None:
    data = capture(layers=1)
    rows, curves = evaluate_sampling(replace(data, v=np.zeros_like(data.v)))
    assert {row.relative_error_mean for row in rows} == {0.0}
    assert {(curve.slope, curve.slope_of_mean, curve.heads) for curve in curves} == {(None, None, 0)}
