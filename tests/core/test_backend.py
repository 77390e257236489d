"""Which backend computes what, and the border to torch."""

import re

import numpy as np
import pytest

from socket_gpu import missing_requirement
from socket_theory import Budget, Dense, Key, Socket
from socket_theory.core import backend
from socket_theory.core.array_types import array_type, common_array_type
from socket_theory.core.backend import Backend, operations, register_operations, resolve_backend
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.socket_lsh.operations import NumpyOperations

KEY = Key.from_seed(9)
QUERY = KEY.generator().standard_normal((2, 4, 16)).astype(np.float32)
KEYS = KEY.generator().standard_normal((2, 2, 40, 16)).astype(np.float32)
BUDGET = Budget(tokens=12, sink=2, window=2)


def test_the_reference_satisfies_the_protocol():
    assert isinstance(NumpyBackend(), Backend)
    assert isinstance(resolve_backend("numpy"), NumpyBackend)
    assert isinstance(resolve_backend("torch"), NumpyBackend)
    assert array_type(QUERY) == common_array_type(a=QUERY, b=None, c=KEYS) == "numpy"


def test_a_backend_object_overrides_the_choice():
    class Counting(NumpyBackend):
        calls = 0

        def select(self, *arguments):
            Counting.calls += 1
            return super().select(*arguments)

    cache = Socket(num_tables=3).prepare(KEYS, KEYS, key=KEY, backend=Counting())
    Socket(num_tables=3).attend(QUERY, cache, budget=BUDGET)
    assert Counting.calls == 1


def test_operations_of_a_family_are_those_registered_for_the_backend(monkeypatch):
    class Other(NumpyBackend):
        name = "other"

    class Counting(NumpyOperations):
        calls = 0

        def soft_scores(self, *arguments, **options):
            Counting.calls += 1
            return super().soft_scores(*arguments, **options)

    monkeypatch.setattr("socket_theory.core.backend._OPERATIONS", dict(backend._OPERATIONS))
    with pytest.raises(ValueError, match=r"^backend 'other' has no operations of socket_lsh, and 'numpy'.* have: "):
        Socket(num_tables=3).prepare(KEYS, KEYS, key=KEY, backend=Other())
    with pytest.raises(ValueError, match=r"has no operations of another, and none have"):
        operations("another", NumpyBackend())
    register_operations("socket_lsh", "other", Counting())
    cache = Socket(num_tables=3).prepare(KEYS, KEYS, key=KEY, backend=Other())
    Socket(num_tables=3).attend(QUERY, cache, budget=BUDGET)
    assert Counting.calls == 1


def test_a_third_party_backend_is_found_by_its_entry_point(monkeypatch):
    class EntryPoint:
        @staticmethod
        def load():
            return NumpyBackend

    monkeypatch.setattr(
        "socket_theory.core.backend.entry_points", lambda group, name: [EntryPoint] if name == "mine" else []
    )
    assert isinstance(resolve_backend("numpy", "mine"), NumpyBackend)
    with pytest.raises(ValueError, match="backend='yours' is not known"):
        resolve_backend("numpy", "yours")


def test_cuda_arrays_get_what_the_gpu_backend_lacks():
    missing = missing_requirement()
    if missing is None:
        assert resolve_backend("torch-cuda").name == "cupy"
    else:
        assert re.search("package|driver|device|headers", missing)
        with pytest.raises(RuntimeError, match=re.escape(missing)):
            resolve_backend("torch-cuda")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_torch_tensors_give_what_numpy_arrays_give(require_extra, dtype):
    torch = require_extra("torch", "torch")
    require_extra("torch", "ml_dtypes")
    query, keys = (torch.from_numpy(a).to(getattr(torch, dtype)) for a in (QUERY, KEYS))
    method = Socket(num_tables=5, value_weight=True)
    cache = method.prepare(keys, keys, key=KEY)
    estimate = method.attend(query, cache.append(keys[:, :, :2], keys[:, :, :2]), budget=BUDGET)
    wide = [a.to(torch.float64).numpy() for a in (query, torch.cat([keys, keys[:, :, :2]], dim=2))]
    expected = method.attend(wide[0], method.prepare(wide[1], wide[1], key=KEY), budget=BUDGET)
    assert estimate.value.dtype == query.dtype
    assert estimate.indices.dtype == torch.int32
    np.testing.assert_array_equal(estimate.indices.numpy(), expected.indices)
    rounded = torch.from_numpy(expected.value).to(query.dtype)
    assert torch.equal(estimate.value, rounded)
    np.testing.assert_allclose(estimate.lse.numpy(), expected.lse, rtol=1e-13)


def test_a_cache_keeps_its_own_copy_of_torch_tensors(require_extra):
    torch = require_extra("torch", "torch")
    keys = torch.from_numpy(KEYS.copy())
    cache = Dense().prepare(keys, keys)
    keys.zero_()
    value = Dense().attend(torch.from_numpy(QUERY), cache).value.numpy()
    np.testing.assert_array_equal(value, Dense().attend(QUERY, Dense().prepare(KEYS, KEYS)).value)


def test_bfloat16_without_ml_dtypes_names_the_install_line(require_extra, monkeypatch):
    torch = require_extra("torch", "torch")
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    keys = torch.zeros(1, 2, 4, dtype=torch.bfloat16)
    with pytest.raises(ImportError, match="pip install ml_dtypes"):
        Dense().prepare(keys, keys)
