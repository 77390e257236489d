"""The reference of SOCKET's operations computes in float64 whatever the arrays' dtype is, and keeps heads apart."""

import numpy as np
import pytest

pytest.importorskip("ml_dtypes", reason="pip install 'socket-theory[test]'")

from socket_theory import Key
from socket_theory.core.checks import bfloat16
from socket_theory.core.draws import sample_mean, sample_mean_value_aware
from socket_theory.core.hashing import hash_keys
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.core.rows import DenseRows
from socket_theory.socket_lsh.operations import NumpyOperations
from socket_theory.testing import random_problem

OWN = NumpyOperations()


def logits(p):
    rows = DenseRows(p.keys.copy(), p.values.copy(), p.spans, NumpyBackend())
    return NumpyBackend().exact_scores(p.query, rows, 0.3).astype(np.float64)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_narrow_arrays_give_what_the_same_numbers_in_float64_give(dtype):
    element = bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    p = random_problem(Key.from_seed(3), slots=120, num_tables=30, num_planes=9, dtype=element)
    keys, values = (p.keys + element.type(3)).astype(element), (p.values * element.type(100)).astype(element)
    narrow, wide = (p.query, keys, values), tuple(a.astype(np.float64) for a in (p.query, keys, values))
    mean = OWN.mean_keys(keys, p.spans)
    np.testing.assert_array_equal(mean, OWN.mean_keys(wide[1], p.spans).astype(element))
    assert mean.dtype == element
    scores = logits(p)
    points = Key.from_seed(1).generator().random((*scores.shape[:2], 9))

    def everything(query, keys, values):
        codes = OWN.hash_keys(keys, p.spans, p.planes, mean if keys.dtype == element else mean.astype(np.float64))
        norms = OWN.value_norms(values, p.spans)
        at = (p.spans, p.planes, "tanh_scaled", 0.4)
        yield from (codes, norms, OWN.soft_scores(query, codes, *at), OWN.log_soft_scores(query, codes, *at))
        yield OWN.hard_scores(query, codes, *at[:2])
        yield from OWN.sample(scores, values, p.spans, norms, points)

    codes = OWN.hash_keys(keys, p.spans, p.planes, mean)
    for row, (start, length) in enumerate(p.spans):
        centred = wide[1][row, 1, start : start + length] - mean[row, 1].astype(np.float64)
        np.testing.assert_array_equal(codes[row, 1, :, start : start + length], hash_keys(centred, p.planes))
    for found, expected in zip(everything(*narrow), everything(*wide), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("value_aware", [False, True])
def test_a_head_is_sampled_at_its_own_points_from_its_own_values(value_aware):
    p = random_problem(Key.from_seed(4), slots=80)
    logs = logits(p)
    norms = OWN.value_norms(p.values, p.spans) if value_aware else None
    points = Key.from_seed(1).generator().random((*logs.shape[:2], 9))
    value, _, slots = OWN.sample(logs, p.values, p.spans, norms, points)
    for row, head in np.ndindex(*logs.shape[:2]):
        start, length = p.spans[row]
        valid = slice(start, start + length)
        weights, rows = np.exp(logs[row, head, valid]), p.values[row, head // 2, valid]
        if value_aware:
            own = norms[row, head // 2, valid].astype(np.float64)
            expected, drawn = sample_mean_value_aware(weights, own, rows, points[row, head])
        else:
            expected, drawn = sample_mean(weights, rows, points[row, head])
        np.testing.assert_allclose(value[row, head], expected, rtol=1e-12)
        kept = slots[row, head][slots[row, head] >= 0]
        np.testing.assert_array_equal(kept, start + np.unique(drawn))
