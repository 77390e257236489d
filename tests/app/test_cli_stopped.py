"""A run that is stopped, or loses a worker, keeps what was finished and leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

# Claims that wait for ever but for C1, which is done at once; each says where it runs.
PROGRAM = """
import os, pathlib, sys, time
from socket_theory.claims import registry
from socket_theory.cli import main
from socket_theory.core.claim import Measurement, Result

folder = pathlib.Path(sys.argv[1])

def run_by_id(claim_id, key, effort):
    if claim_id != "C1":
        (folder / f"pid-{os.getpid()}").touch()
        time.sleep(100)
    return Result(claim_id, Measurement(0, 1), Measurement(2, 1), 0.0)

registry.run_by_id = run_by_id
main(sys.argv[2:])
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background job ignores SIGINT, and one of nohup SIGHUP; their children inherit that.
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)],
    )


def workers(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")]


def start_and_wait_for_workers(folder: Path, output: Path) -> subprocess.Popen[str]:
    """A run whose two workers have begun, and whose one quick claim is done."""
    process = start(folder, "verify", "--claim", "C", "--jobs", "2", "--json", str(output))
    deadline = time.monotonic() + 60
    while len(workers(folder)) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.3)
    return process


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("target", "number", "code", "words"),
    [
        ("command", signal.SIGTERM, 143, "Interrupted"),
        ("command", signal.SIGHUP, 129, "Interrupted"),
        ("all", signal.SIGINT, 130, "Interrupted"),
        ("worker", signal.SIGKILL, 1, "A worker process was killed, most likely because the memory ran out"),
    ],
)
def test_what_was_finished_is_kept(target: str, number: signal.Signals, code: int, words: str, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    process = start_and_wait_for_workers(tmp_path, path)
    running = workers(tmp_path)
    if target == "all":
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid if target == "command" else running[0], number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    first, wrote, last = errors.splitlines()
    assert first == "verifying 6 claims"
    assert wrote == f"Wrote {path}."
    assert last.startswith(words)
    assert last.endswith(": 1 of 6 claims were run, the rest are unknown.")
    assert [row["id"] for row in json.loads(path.read_text())] == ["C1"]
    assert not any(map(is_running, running))


def test_further_signals_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    process = start_and_wait_for_workers(tmp_path, path)
    while process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.02)
    assert process.returncode == 130
    assert [row["id"] for row in json.loads(path.read_text())] == ["C1"]


def test_an_interrupt_while_workers_start_shows_no_traceback(tmp_path: Path) -> None:
    process = start(tmp_path, "verify", "--claim", "C", "--jobs", "2")
    assert process.stderr
    said = process.stderr.readline()
    time.sleep(0.25)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said + errors == ("verifying 6 claims\nInterrupted: 0 of 6 claims were run, the rest are unknown.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_workers_start_is_raised_afterwards(number: signal.Signals) -> None:
    program = f"""
import os, threading, time
from socket_theory.cli.messages import Stopped, stoppable
from socket_theory.core.workers import _children_ignore_interrupts

threading.Thread(target=time.sleep, args=(3,), daemon=True).start()
try:
    with stoppable():
        with _children_ignore_interrupts():
            os.kill(os.getpid(), {int(number)})
            time.sleep(0.2)
            print("inside", flush=True)
        time.sleep(0.2)
        print("lost", flush=True)
except Stopped as stop:
    print(stop.exit_code)
"""
    restore = {"preexec_fn": lambda: signal.signal(number, signal.SIG_DFL)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, **restore)
    assert done.stdout.split() == ["inside", str(128 + number)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_results_are_written_is_ignored(number: signal.Signals, tmp_path: Path) -> None:
    program = f"""
import os, socket_theory.cli.evaluate as evaluate
from socket_theory.cli import main

def source_commit():
    os.kill(os.getpid(), {int(number)})

evaluate.source_commit = source_commit
main("evaluate attention --qkv qkv.npz --density 0.5 --sink 1 --window 1 --json o.json".split())
"""
    draw = np.random.default_rng(0)
    arrays = {"q": draw.normal(size=(1, 2, 1, 8)), "positions": np.array([99])}
    np.savez(tmp_path / "qkv.npz", **arrays, **{name: draw.normal(size=(1, 1, 100, 8)) for name in "kv"})
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "o.json").read_text())["rows"]) == 30


@pytest.mark.parametrize(("stop", "code"), [("os.kill(os.getpid(), 9)", 1), ("os.kill(os.getppid(), 15)", 143)])
def test_an_evaluation_that_is_stopped_keeps_its_finished_stages(stop: str, code: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    arrays = {"q": draw.normal(size=(2, 2, 1, 8)), "positions": np.array([99])}
    np.savez(tmp_path / "qkv.npz", **arrays, **{name: draw.normal(size=(2, 1, 100, 8)) for name in "kv"})
    program = f"""
import os, time, socket_theory.evaluate.sampled_attention as sampled
from socket_theory.cli import main

def measure(*_):
    {stop}
    time.sleep(60)

sampled.measure_layer = measure
main("evaluate attention --qkv qkv.npz --density 0.5 --sink 1 --window 1 --json o.json --report r.html".split())
"""
    environment = os.environ | {"LOKY_MAX_CPU_COUNT": "2"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120
    )
    assert done.returncode == code, done.stderr
    record = json.loads((tmp_path / "o.json").read_text())
    assert record["stopped"] is True
    assert len(record["rows"]) == 30
    assert record["sampled_rows"] == record["variance_curves"] == []
    assert "oracle_top_k" in done.stdout
    assert not (tmp_path / "r.html").exists()
    assert "while sampling values and scores: what came before it is kept" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_evaluation_without_its_worker_ends_in_a_sentence(tmp_path: Path) -> None:
    program = """
import os, socket_theory.evaluate.ranking as ranking
from socket_theory.cli import main

ranking.run_trial = lambda *_: os.kill(os.getpid(), 9)
main("evaluate ranking --trials 2 --json out.json".split())
"""
    environment = os.environ | {"LOKY_MAX_CPU_COUNT": "2"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[1].startswith("A worker process was killed, most likely")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
