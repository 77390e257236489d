"""compute-sanitizer finds nothing in any kernel, after it has found a planted overrun, race and divergent barrier."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
CLEAN = {
    "memcheck": "ERROR SUMMARY: 0 errors",
    "racecheck": "RACECHECK SUMMARY: 0 hazards displayed",
    "synccheck": "ERROR SUMMARY: 0 errors",
}


def sanitize(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`sanitize.py` under a tool of compute-sanitizer, whose findings give the exit status 77."""
    found = shutil.which("compute-sanitizer")
    if found is None:
        pytest.skip("compute-sanitizer is not on PATH: install the CUDA toolkit and add its bin folder.")
    # API errors that a library handles itself, as in a query of a pointer, are no finding.
    options = ["--report-api-errors", "no"] if tool == "memcheck" else []
    script = [sys.executable, str(Path(__file__).with_name("sanitize.py")), *arguments]
    command = [found, "--tool", tool, "--error-exitcode", "77", *options, *script]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=300)


def test_a_planted_overrun_is_found():
    run = sanitize("memcheck", "--plant", "overrun")
    assert "Invalid __global__ write of size 4 bytes" in run.stdout + run.stderr
    assert run.returncode != 0


def test_a_planted_race_is_found():
    run = sanitize("racecheck", "--plant", "race")
    assert "hazard" in run.stdout
    assert CLEAN["racecheck"] not in run.stdout
    assert run.returncode == 77


def test_a_planted_divergent_barrier_is_found():
    run = sanitize("synccheck", "--plant", "barrier")
    assert "Divergent thread(s) in warp" in run.stdout
    assert run.returncode == 77


@pytest.mark.parametrize("tool", CLEAN)
def test_every_kernel_is_clean(tool):
    run = sanitize(tool)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    assert CLEAN[tool] in run.stdout
