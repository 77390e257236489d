"""The memory of a training step of RACE attention on a CPU, in a process of its own.

Its speed is measured by `python -m socket_theory.integrations.race_torch.speed` on an idle machine, and not here: on a
shared one a step and a matrix product lose different parts of their speed.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="pip install 'socket-theory[torch]'")

from socket_theory.integrations.race_torch.speed import TrainingSpeed

MEASURE = """
from socket_theory.integrations.race_torch.speed import measure_training
print(measure_training(131072, rounds=1).memory_ratio)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_step_holds_little_but_its_tensors() -> None:
    output = subprocess.run([sys.executable, "-c", MEASURE], check=True, capture_output=True, text=True).stdout
    assert 1 <= float(output) <= 1.3


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
