"""What a training step of RACE attention costs on a CPU, measured in a process of its own, and printed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="pip install 'socket-theory[torch]'")

from socket_theory.integrations.race_torch.speed import TrainingSpeed

BUSY = 2.5
MEASURE = """
from socket_theory.integrations.race_torch.speed import measure_training
speed = measure_training(131072, rounds=8)
print(speed)
print(speed.tokens_per_second, speed.share_of_sgemm, speed.memory_ratio)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_step_reaches_a_quarter_of_sgemm_and_holds_little_but_its_tensors() -> None:
    load = os.getloadavg()[0]
    if load > BUSY:
        pytest.skip(f"the machine is busy, its load is {load:.1f}: run this test alone.")
    output = subprocess.run([sys.executable, "-c", MEASURE], check=True, capture_output=True, text=True).stdout
    print(output)
    tokens_per_second, share_of_sgemm, memory_ratio = map(float, output.splitlines()[-1].split())
    assert memory_ratio <= 1.3
    assert tokens_per_second >= 0.12e6 or share_of_sgemm >= 0.25


def test_numbers_are_derived_from_what_was_measured() -> None:
    speed = TrainingSpeed(
        tokens=1_000_000,
        causal=False,
        cores=2,
        seconds=(2.0, 3.0),
        operations=5e11,
        sgemm=2e11,
        peak_bytes=2**31,
        tensor_bytes=2**30,
    )
    assert speed.tokens_per_second == 200_000
    assert speed.share_of_sgemm == 0.5
    assert speed.memory_ratio == 2.0
    assert speed.extrapolated_seconds == pytest.approx(75e6 / (200_000 * 9))
    assert "extrapolated, not measured: 75M tokens on 18 cores like these in 42 s" in str(speed)
    assert "about 100 s on a Xeon 5220R" in str(speed)
