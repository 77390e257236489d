"""Soft buckets (R1): a probability over buckets, whose largest is the bucket of the signs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from socket_theory.core.hashing import Planes, SignHash, code_signs, hash_keys
from socket_theory.core.rng import Key
from socket_theory.race.features import collision_weights, require_beta, require_features, soft_buckets

VECTORS = np.random.default_rng(0).standard_normal((2, 5, 16))


def planes(num_planes: int, num_tables: int = 3) -> Planes:
    return SignHash(num_tables, num_planes, 16).draw(Key.from_seed(1))


@pytest.mark.parametrize("num_planes", [1, 2, 5])
@pytest.mark.parametrize("beta", [0.088, 2.0, 15.0])
def test_features_are_the_softmax_over_corners(num_planes: int, beta: float) -> None:
    weights = planes(num_planes).weights
    corners = code_signs(np.arange(2**num_planes, dtype=np.uint16), num_planes)
    logits = beta * np.tanh(np.einsum("bnd,lpd->bnlp", VECTORS, weights)) @ corners.T
    features = soft_buckets(VECTORS, weights, beta)
    assert features.shape == (2, 5, 3, 2**num_planes)
    np.testing.assert_allclose(features, softmax(logits, axis=-1), rtol=1e-11)
    np.testing.assert_allclose(features.sum(axis=-1), 1, rtol=1e-14)


def test_the_largest_feature_is_the_bucket_of_the_signs() -> None:
    """The same bit order as codes: the first plane is the least significant bit."""
    drawn = planes(4)
    features = soft_buckets(VECTORS[0], drawn.weights, 2.0)
    np.testing.assert_array_equal(features.argmax(axis=-1).T, hash_keys(VECTORS[0], drawn))
    np.testing.assert_array_equal(soft_buckets(-VECTORS[0], drawn.weights, 2.0), features[..., ::-1])


def test_the_weight_of_a_key_is_a_mean_of_products_of_bits() -> None:
    drawn = planes(3, num_tables=4)
    query, keys = VECTORS
    asked, held = (np.tanh(2.0 * np.tanh(np.einsum("nd,lpd->nlp", x, drawn.weights))) for x in (query, keys))
    bits = (1 + asked[:, None] * held[None]) / 2
    np.testing.assert_allclose(collision_weights(query, keys, drawn, 2.0), bits.prod(axis=-1).mean(axis=-1), rtol=1e-12)


def test_a_zero_vector_is_in_all_buckets_alike() -> None:
    np.testing.assert_array_equal(soft_buckets(np.zeros((1, 16)), planes(3).weights, 2.0), 1 / 8)


def test_beta_and_features_out_of_range_are_refused() -> None:
    assert require_beta(2, 4) == 2.0
    for beta in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="beta"):
            require_beta(beta, 4)
    with pytest.raises(ValueError, match="pass at most 20"):
        require_beta(21.0, 4)
    require_features(5, 128)
    with pytest.raises(ValueError, match="8192 features"):
        require_features(13, 1)
