"""A training step of RACE attention on the CPU, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

ROUNDS = 3
_MEASURE = """
import json, sys
from dataclasses import asdict
from socket_theory.integrations.race_torch.speed import measure_training
tokens, causal, rounds = json.loads(sys.argv[1])
print(json.dumps([asdict(measure_training(tokens, causal, rounds=1)) for _ in range(rounds)]))
"""


@dataclass(frozen=True)
class CpuRun:
    """Training steps on the CPU: seconds of (forward, backward) of each, the cores, and the most bytes one took."""

    seconds: tuple[tuple[float, float], ...]
    cores: int
    peak_bytes: int


def cpu_training(tokens: int, causal: bool) -> CpuRun:
    """A few steps of `integrations.race_torch.speed`, each in memory that was just set back.

    Raises
    ------
    RuntimeError
        With the last line of what the process said, if it fails.
    """
    command = [sys.executable, "-c", _MEASURE, json.dumps([tokens, causal, ROUNDS])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["the process was killed."])[-1])
    steps = json.loads(done.stdout)
    return CpuRun(
        seconds=tuple((step["seconds"][0], step["seconds"][1]) for step in steps),
        cores=steps[0]["cores"],
        peak_bytes=max(step["peak_bytes"] for step in steps),
    )
