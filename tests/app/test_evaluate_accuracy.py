"""The accuracy table: its metrics against plain loops, its order, its error bars, and that nothing looks ahead."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from socket_theory.core.baselines import Window
from socket_theory.core.hashing import SignHash
from socket_theory.core.rng import Key
from socket_theory.core.selection import Budget, ForcedTokensWarning
from socket_theory.evaluate.accuracy import Row, evaluate_attention, measure_layer
from socket_theory.evaluate.capture import Capture
from socket_theory.evaluate.contenders import Contender, contenders, socket_grid
from socket_theory.socket_lsh.estimator import Socket
from socket_theory.socket_lsh.sampling import SocketSampling

BUDGET = Budget(fraction=0.1, sink=2, window=4)
DENSITY, MASS, RECALL, ERROR = range(4)


def capture(layers: int = 2, heads: int = 4, context: int = 128, seed: int = 3) -> Capture:
    """Peaked attention: queries long enough that a few keys hold most of the mass."""
    draw = Key.from_seed(seed).generator()
    positions = np.array([context // 2, context - 9])
    return Capture(
        q=3 * draw.normal(size=(layers, heads, 2, 16)),
        k=draw.normal(size=(layers, 2, context, 16)).astype(np.float16),
        v=draw.normal(size=(layers, 2, context, 16)).astype(np.float16),
        positions=positions,
    )


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return evaluate_attention(capture(), BUDGET, seed=5)


def by_name(rows: list[Row], name: str) -> list[Row]:
    return [row for row in rows if row.method == name]


def test_the_rows_are_every_contender_in_order(rows: list[Row]) -> None:
    names = ["dense", "oracle_top_k", "window", "random", "hard_lsh", *["socket"] * 24, "socket_sampling"]
    assert [row.method for row in rows] == names
    assert Socket.as_released() in socket_grid()
    assert Socket.as_documented() in socket_grid()
    assert Socket() in socket_grid()
    assert len({str(row.settings) for row in by_name(rows, "socket")}) == 24


def test_dense_is_exact_and_keeps_everything(rows: list[Row]) -> None:
    (dense,) = by_name(rows, "dense")
    assert dense.relative_error_p90 < 1e-12
    assert dense.density == dense.recall == 1
    assert dense.captured_mass == pytest.approx(1)


def test_no_selection_of_the_same_size_captures_more_mass_than_the_oracle(rows: list[Row]) -> None:
    (oracle,) = by_name(rows, "oracle_top_k")
    selections = [row for row in rows if row.method in ("window", "random", "hard_lsh", "socket")]
    assert all(row.density == pytest.approx(oracle.density) for row in selections)
    assert all(row.captured_mass <= oracle.captured_mass + 1e-12 for row in selections)
    assert all(row.recall <= oracle.recall for row in selections)
    assert oracle.relative_error_mean < by_name(rows, "random")[0].relative_error_mean


def test_bits_are_those_of_the_index(rows: list[Row]) -> None:
    assert {row.nominal_bits for row in rows if row.method in ("hard_lsh", "socket", "socket_sampling")} == {600}
    assert {row.bits_per_token for row in rows if row.method in ("dense", "oracle_top_k", "window", "random")} == {0}
    stored = {(row.settings["value_weight"], row.bits_per_token) for row in by_name(rows, "socket")}
    (_, plain), (_, weighted) = sorted(stored)
    assert weighted > plain >= 600


def test_the_measures_are_those_of_a_plain_loop() -> None:
    data = capture(layers=1)
    measured, _ = measure_layer(
        data.q[0], data.k[0], data.v[0], data.positions, [Contender("window", Window())], BUDGET, Key.from_seed(0)
    )
    for head in range(4):
        for time, position in enumerate(data.positions):
            k = data.k[0, head // 2, : position + 1].astype(float)
            v = data.v[0, head // 2, : position + 1].astype(float)
            logits = k @ data.q[0, head, time] / 4
            weights = np.exp(logits)
            size = BUDGET.kept(len(k))
            kept = [*range(2), *range(len(k) - (size - 2), len(k))]
            exact = weights @ v / weights.sum()
            error = weights[kept] @ v[kept] / weights[kept].sum() - exact
            top = set(np.argsort(logits)[-size:])
            assert measured[0, head, time, DENSITY] == pytest.approx(size / len(k))
            assert measured[0, head, time, MASS] == pytest.approx(weights[kept].sum() / weights.sum())
            assert measured[0, head, time, RECALL] == pytest.approx(len(top & set(kept)) / size)
            assert measured[0, head, time, ERROR] == pytest.approx(np.linalg.norm(error) / np.linalg.norm(exact))


def test_a_shared_index_gives_what_a_method_of_its_own_gives() -> None:
    data = capture(layers=1)
    key = Key.from_seed(0)
    field = contenders(num_samples=20)
    together, bits = measure_layer(data.q[0], data.k[0], data.v[0], data.positions, field, BUDGET, key)
    for row, contender in enumerate(field):
        alone, own_bits = measure_layer(data.q[0], data.k[0], data.v[0], data.positions, [contender], BUDGET, key)
        np.testing.assert_array_equal(alone[0], together[row])
        assert own_bits == [bits[row]]


def test_the_planes_of_a_layer_are_one_draw_of_its_key() -> None:
    data = capture(layers=1)
    key = Key.from_seed(0)
    method = SocketSampling(num_samples=20)
    field = [Contender("s", method)]
    measured, _ = measure_layer(data.q[0], data.k[0], data.v[0], data.positions, field, BUDGET, key)
    cache = method.prepare(data.k[0], data.v[0], sample=SignHash(60, 10, 16).draw(key))
    last = int(data.positions[-1])
    estimate = method.attend(data.q[0][:, -1], cache.truncate(last + 1), key=key.fold_in("s", last))
    np.testing.assert_array_equal(measured[0, :, -1, DENSITY], estimate.stats.density)


def test_no_method_sees_tokens_behind_its_position() -> None:
    data = capture(layers=1)
    key, field = Key.from_seed(0), contenders(num_samples=20)
    before, _ = measure_layer(data.q[0], data.k[0], data.v[0], data.positions, field, BUDGET, key)
    k, v = data.k[0].copy(), data.v[0].copy()
    k[:, data.positions[0] + 1 :] *= -2
    v[:, data.positions[0] + 1 :] += 1
    after, _ = measure_layer(data.q[0], k, v, data.positions, field, BUDGET, key)
    np.testing.assert_array_equal(before[:, :, 0], after[:, :, 0])
    assert (before[1:, :, 1] != after[1:, :, 1]).any()


def test_the_seed_decides_every_draw(rows: list[Row]) -> None:
    again, other = (evaluate_attention(capture(), BUDGET, seed=seed) for seed in (5, 6))
    assert again == rows
    assert by_name(other, "oracle_top_k") == by_name(rows, "oracle_top_k")
    for name in ("random", "hard_lsh", "socket", "socket_sampling"):
        assert by_name(other, name) != by_name(rows, name)


def test_layers_can_be_chosen(rows: list[Row]) -> None:
    one, two = (evaluate_attention(capture(), BUDGET, seed=5, layers=[layer]) for layer in (0, 1))
    for whole, first, second in zip(rows, one, two, strict=True):
        assert whole.relative_error_mean == pytest.approx((first.relative_error_mean + second.relative_error_mean) / 2)
    with pytest.raises(ValueError, match=r"layers=\[0, 2\] were given: pass some of 0 to 1"):
        evaluate_attention(capture(), BUDGET, layers=[0, 2])


def test_repeating_positions_does_not_shrink_the_error_bar() -> None:
    data = capture()
    twice = replace(data, q=np.tile(data.q, (1, 1, 2, 1)), positions=np.tile(data.positions, 2))
    once, repeated = (by_name(evaluate_attention(each, BUDGET), "window")[0] for each in (data, twice))
    assert once.standard_error == pytest.approx(repeated.standard_error)
    assert once.standard_error is not None
    assert once.standard_error > 0


def test_one_layer_and_head_have_no_error_bar() -> None:
    draw = Key.from_seed(0).generator()
    q, k = draw.normal(size=(1, 1, 2, 16)), draw.normal(size=(1, 1, 64, 16))
    rows = evaluate_attention(Capture(q, k, k, np.array([40, 63])), replace(BUDGET, fraction=0.3))
    assert {row.standard_error for row in rows} == {None}


def test_zero_values_give_zero_error_not_nan() -> None:
    data = capture(layers=1)
    rows = evaluate_attention(replace(data, v=np.zeros_like(data.v)), BUDGET)
    assert {row.relative_error_mean for row in rows} == {0.0}


def test_a_budget_that_leaves_no_choice_is_warned_of_and_marked() -> None:
    data = capture(layers=1)
    narrow = Budget(fraction=0.05, sink=2, window=4)
    with pytest.warns(ForcedTokensWarning, match=r"fraction=0\.05 with sink=2 and window=4 leaves .* 2 of 2 positions"):
        rows = evaluate_attention(data, narrow)
    assert {row.method for row in rows if not row.forced_only} == {"dense", "socket_sampling"}
    errors = {row.relative_error_mean for row in rows if row.forced_only == 1}
    assert len(errors) == 1
    with pytest.warns(ForcedTokensWarning, match="at 1 of 2 positions, the longest of 65 tokens"):
        rows = evaluate_attention(data, replace(narrow, fraction=0.09))
    assert {row.forced_only for row in rows} == {0, 0.5}


def test_a_budget_that_leaves_a_choice_is_not_warned_of(rows: list[Row]) -> None:
    assert {row.forced_only for row in rows} == {0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluate_attention(capture(), BUDGET, seed=5) == rows


def test_layers_have_the_numbers_of_the_capture() -> None:
    data = replace(capture(), layers=np.array([1, 4]))
    alone = replace(data, q=data.q[1:], k=data.k[1:], v=data.v[1:], layers=np.array([4]))
    assert evaluate_attention(data, BUDGET, layers=[4]) == evaluate_attention(alone, BUDGET)
    with pytest.raises(ValueError, match=r"layers=\[0, 1\] were given: pass some of 1, 4, which have attention"):
        evaluate_attention(data, BUDGET, layers=[0, 1])
