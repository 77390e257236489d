"""Inversion draws the law it is given, and both sampled means are unbiased for the weighted mean."""

import numpy as np
import pytest

from socket_theory import Key
from socket_theory.core.draws import draw_tokens, sample_mean, sample_mean_value_aware

DRAW = Key.from_seed(4).generator()
WEIGHTS = np.array([0.0, 0.2, 0.0, 0.5, 0.3, 0.0])
VALUES = DRAW.standard_normal((6, 3)) * np.array([1, 5, 1, 0.2, 2, 9])[:, None]
GRID = (np.arange(100_000) + 0.5) / 100_000


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_equally_spaced_points_draw_each_token_its_share(scale):
    counts = np.bincount(draw_tokens(WEIGHTS * scale, GRID), minlength=6) / len(GRID)
    np.testing.assert_allclose(counts, WEIGHTS, atol=2e-5)


def test_the_ends_of_the_unit_interval_hit_tokens_of_positive_weight():
    assert draw_tokens(WEIGHTS, np.array([0.0, np.nextafter(1.0, 0.0)])).tolist() == [1, 4]


def test_all_weights_zero_draw_uniformly():
    assert np.bincount(draw_tokens(np.zeros(4), GRID)).tolist() == [25_000] * 4


def test_both_means_integrate_to_the_weighted_mean():
    exact = WEIGHTS @ VALUES / WEIGHTS.sum()
    norms = np.linalg.norm(VALUES, axis=1)
    for rounded in (norms, np.exp2(np.round(np.log2(norms)))):
        np.testing.assert_allclose(sample_mean_value_aware(WEIGHTS, rounded, VALUES, GRID)[0], exact, atol=1e-3)
    np.testing.assert_allclose(sample_mean(WEIGHTS, VALUES, GRID)[0], exact, atol=1e-3)
    wrong = VALUES[draw_tokens(WEIGHTS * norms, GRID)].mean(0)
    assert np.abs(wrong - exact).max() > 0.1


def test_zero_values_give_zero():
    value, drawn = sample_mean_value_aware(WEIGHTS, np.zeros(6), np.zeros((6, 3)), GRID[:7])
    assert (value == 0).all()
    assert len(drawn) == 7
