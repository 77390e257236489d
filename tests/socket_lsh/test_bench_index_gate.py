"""The gate of SOCKET's index accepts the reference and rejects codes and norms that are slightly wrong."""

from __future__ import annotations

import numpy as np
import pytest

from socket_gpu.bench.gate import GateError
from socket_gpu.socket_lsh.index_gate import require_codes, require_norms
from socket_theory.core.hashing import SignHash, hash_keys
from socket_theory.core.rng import Key
from socket_theory.socket_lsh.operations import NumpyOperations
from socket_theory.testing import rounding_margin

KEY = Key.from_seed(3)
PLANES = SignHash(7, 10, 32).draw(KEY)


def draws(*shape):
    return KEY.generator().standard_normal(shape)


def test_codes_may_differ_only_within_rounding():
    keys = draws(400, 32)
    codes = hash_keys(keys, PLANES)
    require_codes("a head", codes, keys, PLANES)
    wrong = codes.copy()
    wrong[3, 200] ^= 1 << 9
    assert rounding_margin(keys, PLANES)[3, 9, 200]
    with pytest.raises(GateError, match="1 of 2800 codes of a head differ"):
        require_codes("a head", wrong, keys, PLANES)


def test_a_bit_within_rounding_is_not_compared():
    keys = draws(400, 32)
    plane = PLANES.weights[3, 9]
    keys[200] -= plane * (keys[200] @ plane) / (plane @ plane)
    assert not rounding_margin(keys, PLANES)[3, 9, 200]
    codes = hash_keys(keys, PLANES)
    codes[3, 200] ^= 1 << 9
    require_codes("a head", codes, keys, PLANES)


def test_codes_of_keys_without_a_certain_bit_pass_no_gate():
    with pytest.raises(GateError, match="certain enough"):
        require_codes("a head", np.zeros((7, 40), np.uint16), np.zeros((40, 32)), PLANES)


def test_norms_within_the_tolerance():
    values = draws(400, 32)
    norms = NumpyOperations().value_norms(values[None, None], np.array([[0, 400]]))[0, 0]
    require_norms("a head", norms, values)
    with pytest.raises(GateError, match="value norms of a head"):
        require_norms("a head", norms * np.float32(1.02), values)
