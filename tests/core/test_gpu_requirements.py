"""What the GPU backend says is missing, one requirement at a time."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from socket_gpu.core import backend, requirements
from socket_gpu.race.plan import RacePlan
from socket_gpu.santa.plan import SantaPlan
from socket_gpu.socket_lsh.plan import DecodePlan
from socket_theory import Budget, Key, Race, Santa, Socket

KEY, KEYS = Key.from_seed(0), np.ones((1, 1, 4, 64), dtype=np.float16)


class CUDARuntimeError(Exception):
    """Stands in for CuPy's."""


def fake_cupy(driver=13000, devices=1, error=None, compiles=True):
    def count():
        if error:
            raise CUDARuntimeError(error)
        return devices

    def compile_module(**_):
        if not compiles:
            raise OSError("cuda_fp16.h")
        return SimpleNamespace(get_function=lambda name: name)

    runtime = SimpleNamespace(driverGetVersion=lambda: driver, getDeviceCount=count, CUDARuntimeError=CUDARuntimeError)
    return SimpleNamespace(cuda=SimpleNamespace(runtime=runtime), RawModule=compile_module)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"driver": 0}, "no NVIDIA driver is loaded"),
        ({"devices": 0}, "sees no device"),
        ({"error": "cudaErrorInsufficientDriver"}, "cudaErrorInsufficientDriver"),
        ({"compiles": False}, "the CUDA headers do not compile as C++20"),
        ({}, None),
    ],
)
def test_the_first_missing_requirement_is_named(monkeypatch, settings, sentence):
    monkeypatch.setattr(requirements, "cupy_wheels", lambda: ["cupy-cuda12x"])
    monkeypatch.setattr(requirements, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(**settings))
    found = requirements.missing_requirement()
    assert found is None if sentence is None else sentence in found


def test_no_package_names_the_install_line(monkeypatch):
    monkeypatch.setattr(requirements, "cupy_wheels", list)
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    assert "pip install 'socket-theory[gpu-cuda12]'" in requirements.missing_requirement()


def test_two_wheels_are_named(monkeypatch):
    monkeypatch.setattr(requirements, "cupy_wheels", lambda: ["cupy-cuda12x", "cupy-cuda13x"])
    assert "cupy-cuda12x and cupy-cuda13x are installed together" in requirements.missing_requirement()


def test_a_package_that_does_not_import_is_named(monkeypatch):
    monkeypatch.setattr(requirements, "cupy_wheels", lambda: ["cupy-cuda12x"])
    monkeypatch.setattr(requirements, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "does not import" in requirements.missing_requirement()


PLANS = {
    "decode": lambda: DecodePlan(Socket().prepare(KEYS, KEYS, key=KEY), num_qo_heads=1, budget=Budget(tokens=2)),
    "race": lambda: RacePlan(Race().prepare(KEYS, KEYS, key=KEY), num_qo_heads=1),
    "santa": lambda: SantaPlan(Santa().prepare(KEYS, KEYS), num_qo_heads=1, key=KEY),
}


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_says_what_is_missing(monkeypatch, plan):
    monkeypatch.setattr(backend, "missing_requirement", lambda: "the package CuPy is not installed.")
    backend._require.cache_clear()  # it remembers a machine that has all
    with pytest.raises(RuntimeError, match=r"^CuPy and CUDA arrays need a GPU backend, and the package CuPy is not"):
        PLANS[plan]()
