"""The reference backend computes in float64 whatever the arrays' dtype is, and keeps sequences and heads apart."""

import numpy as np
import pytest

pytest.importorskip("ml_dtypes", reason="pip install 'socket-theory[test]'")

from socket_theory import Key
from socket_theory.core.checks import bfloat16
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.core.rows import DenseRows
from socket_theory.testing import random_problem

ENGINE = NumpyBackend()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_narrow_arrays_give_what_the_same_numbers_in_float64_give(dtype):
    element = bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    p = random_problem(Key.from_seed(3), slots=120, dtype=element)
    keys, values = (p.keys + element.type(3)).astype(element), (p.values * element.type(100)).astype(element)
    narrow, wide = (p.query, keys, values), tuple(a.astype(np.float64) for a in (p.query, keys, values))
    scores = ENGINE.exact_scores(wide[0], DenseRows(*wide[1:], p.spans, ENGINE), 0.3).astype(np.float64)
    kept = np.tile(p.spans[:, :1, None] + np.arange(5), (1, 4, 1)).astype(np.int32)
    kept[kept >= p.spans.sum(axis=1)[:, None, None]] = -1

    def everything(query, keys, values):
        rows = DenseRows(keys, values, p.spans, ENGINE)
        yield ENGINE.exact_scores(query, rows, 0.3)
        yield from ENGINE.attend(query, rows, kept, 0.3)
        yield from ENGINE.average(scores, rows)

    for found, expected in zip(everything(*narrow), everything(*wide), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_new_tokens_go_behind_their_own_sequence_and_spare_slots_stay():
    draw = np.random.default_rng(2)
    old, new = draw.standard_normal((3, 2, 20, 4)), draw.standard_normal((3, 2, 2, 4))
    ends = np.array([5, 12, 2])
    expected = old.copy()
    for row, end in enumerate(ends):
        expected[row, :, end : end + 2] = new[row]
    np.testing.assert_array_equal(ENGINE.write(old, new, ends, None, -2), expected)
    index, added = np.moveaxis(old, -1, -2), np.moveaxis(new, -1, -2)
    np.testing.assert_array_equal(ENGINE.write(index, added, ends, None, -1), np.moveaxis(expected, -1, -2))
