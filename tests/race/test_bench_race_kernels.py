"""The gates of `bench race` over the kernels themselves, built for a CPU."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from whole_sequences import CountingClock, NumpyUnderCupysName

pytest.importorskip("ml_dtypes", reason="pip install 'socket-theory[test]'")

from socket_gpu.bench import stages
from socket_gpu.bench.gate import GateError
from socket_gpu.bench.shape import Shape
from socket_gpu.race import bench_pass, border_gate
from socket_gpu.race.cases import Case
from socket_gpu.race.traffic import passes


@pytest.fixture
def measure(gpu_on_cpu, monkeypatch):
    random = SimpleNamespace(RandomState=NumpyUnderCupysName.random.RandomState)
    monkeypatch.setattr(sys.modules["cupy"], "random", random, raising=False)
    for module in (bench_pass, stages):
        monkeypatch.setattr(module, "capture", lambda work: work)
    monkeypatch.setattr(bench_pass, "held_bytes", lambda: 0)
    monkeypatch.setattr(border_gate, "TILE", 64)

    def run(causal):
        case = Case(Shape(1, 2, 1, 256, head_dim=64), causal)
        return bench_pass.measure_sequences(case, CountingClock())

    return run


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
def test_the_kernels_pass_and_every_pass_of_the_byte_model_is_one_of_their_stages(measure, causal):
    forward, both = measure(causal)
    assert set(passes(causal, False)) <= set(forward.stage_us)
    assert set(passes(causal, True)) <= set(both.stage_us)


@pytest.mark.slow
def test_kernels_that_lose_a_tile_do_not_pass(measure, monkeypatch):
    monkeypatch.setattr("socket_gpu.race.sequences.add_tiles", lambda sums, behind: None)
    with pytest.raises(GateError, match=r"is off by"):
        measure(True)
