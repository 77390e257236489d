"""Angular attention of whole sequences against that of single queries, and RACE against it and the released form."""

import math

import numpy as np
import pytest

from socket_theory import (
    Key,
    SignHash,
    angular_attention,
    race_attention,
    race_per_bucket_attention,
    sharpened_angular_attention,
)
from socket_theory.race.features import soft_buckets
from socket_theory.testing import assert_close

KEY = Key.from_seed(42)


def inputs(tokens=20, slots=30, dim=8, seed=0):
    draw = KEY.fold_in("inputs", seed).generator()
    return (draw.standard_normal(shape) for shape in ((2, 6, tokens, dim), (2, 2, slots, dim), (2, 2, slots, 5)))


@pytest.mark.parametrize("causal", [False, True])
def test_a_whole_gamma_is_angular_attention_of_each_query(causal):
    query, keys, values = inputs()
    start, length = [0, 12], [30, 14]
    state = sharpened_angular_attention(query, keys, values, 3, causal, kv_start=start, kv_len=length)
    for row, head, token in np.ndindex(query.shape[:3]):
        slot, end = 10 + token, start[row] + length[row]
        if causal and not start[row] <= slot < end:
            assert (state.value[row, head, token] == 0).all()
            assert state.lse[row, head, token] == -np.inf
            continue
        seen = slice(start[row], slot + 1 if causal else end)
        mine = angular_attention(query[row, head, token], keys[row, head // 3, seen], values[row, head // 3, seen], 3)
        assert_close(state.value[row, head, token], mine.value, "float64")
        assert state.lse[row, head, token] == pytest.approx(float(mine.lse), abs=1e-12)


def test_gamma_is_the_power_of_the_kernel():
    query, keys = np.array([[[1.0, 0.0]]]), np.array([[[1.0, 1.0], [0.0, 1.0], [-1.0, 1.0]]])
    values = np.eye(3)[None]
    for gamma in (0.5, 2.7, 8.0):
        weights = np.array([0.75, 0.5, 0.25]) ** gamma
        state = sharpened_angular_attention(query, keys, values, gamma)
        np.testing.assert_allclose(state.value[0, 0], weights / weights.sum(), rtol=1e-13)
        assert float(state.lse[0, 0]) == pytest.approx(math.log(weights.sum()), rel=1e-13)


def test_many_rows_are_taken_in_parts(monkeypatch):
    query, keys, values = inputs()
    whole = sharpened_angular_attention(query, keys, values, 2.5, True)
    monkeypatch.setattr("socket_theory.race.targets._AT_ONCE", 3 * 30 * 8)
    parts = sharpened_angular_attention(query, keys, values, 2.5, True)
    np.testing.assert_array_equal(parts.value, whole.value)


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan"), float("inf")])
def test_a_gamma_that_is_none_is_refused(gamma):
    with pytest.raises(ValueError, match=r"^gamma=.* was given: pass a finite number above 0"):
        sharpened_angular_attention(*inputs(), gamma)


def test_a_query_whose_keys_all_point_away_has_no_weights():
    away = np.array([[[1.0, 0.0]]])
    with pytest.raises(ValueError, match="no token has a positive weight"):
        sharpened_angular_attention(away, -away, away, 2.0)


@pytest.mark.parametrize("causal", [False, True])
def test_many_tables_of_a_steep_beta_tend_to_angular_attention(causal):
    """Of one fixed draw: with 256 times the tables the error is about a sixteenth, and the bias at beta = 10 small."""
    query, keys, values = inputs()
    target = sharpened_angular_attention(query, keys, values, 2, causal).value

    def error(tables):
        planes = SignHash(tables, 2, 8).draw(KEY)
        found = race_attention(query, keys, values, planes, 10.0, causal).value
        return np.linalg.norm(found - target) / np.linalg.norm(target)

    few, many = error(4), error(1024)
    assert 0.4 < few < 1.5
    assert few / 40 < many < few / 6


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("slots", [30, 150])
def test_the_released_form_is_its_definition(causal, slots):
    query, keys, values = inputs(slots - 10, slots)
    planes, start, length = SignHash(3, 2, 8).draw(KEY), [0, 15], [slots, 14]
    found = race_per_bucket_attention(query, keys, values, planes, 2.0, causal, kv_start=start, kv_len=length)
    asked, held = (soft_buckets(array, planes.weights, 2.0) for array in (query, keys))
    for row, head, token in np.ndindex(query.shape[:3]):
        slot, end = 10 + token, start[row] + length[row]
        if causal and not start[row] <= slot < end:
            assert (found[row, head, token] == 0).all()
            continue
        seen = slice(start[row], slot + 1 if causal else end)
        mass = held[row, head // 3, seen].sum(axis=0)
        weighted = np.einsum("nlr,ne->lre", held[row, head // 3, seen], values[row, head // 3, seen])
        means = weighted / (mass[..., None] + 1e-6)
        value = np.einsum("lr,lre->e", asked[row, head, token], means) / 3
        assert_close(found[row, head, token], value, "float64")


@pytest.mark.parametrize(("beta", "least", "most"), [(0.25, 0.003, 0.02), (0.5, 0.015, 0.04), (2.0, 0.18, 0.28)])
def test_the_released_form_is_another_estimator(beta, least, most):
    """On Gaussian tokens, N = 50, P = 3, L = 4; more tables do not close the gap."""
    apart = []
    for tables, seed in ((4, 0), (4, 1), (256, 0)):
        draw = KEY.fold_in("gap", seed).generator()
        query, keys, values = draw.standard_normal((3, 8, 50, 64))
        planes = SignHash(tables, 3, 64).draw(KEY.fold_in("planes", seed))
        ours = race_attention(query, keys, values, planes, beta).value
        theirs = race_per_bucket_attention(query, keys, values, planes, beta)
        apart.append(np.linalg.norm(theirs - ours) / np.linalg.norm(ours))
    assert least < min(apart[:2])
    assert max(apart[:2]) < most
    assert apart[2] > least / 3
