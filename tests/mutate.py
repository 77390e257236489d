"""Do the tests see wrong code? Puts one single-line fault after another into a copy of this tree and runs the tests.

    python tests/mutate.py [WORD ...]

Every fault of mutations.toml beside this file (with words: those whose file or fault holds one of them) meets the
quick tests of its file. The working tree is left alone. Exits with 1 if the tests fail without any fault, or if fewer
than 95 % of the faults are killed. A fault that only runs out of time counts as a survivor.
"""

import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_name("mutations.toml")
COPIED = ("socket_theory", "socket_gpu", "tests", "pyproject.toml")
LEAST_SCORE, AT_ONCE, TIMEOUT_S = 0.95, 2, 300
# One set of examples a run: a random one would make the score random. Plugins of other projects only cost time.
PYTEST = ("-m", "pytest", "-x", "-q", "-m", "not gpu", "-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin")
SETTINGS = {
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    # A skipped test sees no fault.
    "REQUIRE_ALL_EXTRAS": "1",
}


class Fault(NamedTuple):
    """One wrong line. `equivalent` says why no test can see it; such a fault is run, but not counted."""

    file: str
    old: str
    new: str
    wrong: str
    tests: tuple[str, ...]
    equivalent: str = ""


class Verdict(NamedTuple):
    """killed, survived or timed out; an equivalent fault is meant to survive."""

    fault: Fault
    outcome: str
    seconds: float

    @property
    def expected(self) -> bool:
        return self.outcome == ("survived" if self.fault.equivalent else "killed")


def read_faults(table: Path = TABLE) -> list[Fault]:
    """The rows of the table, each with the quick tests of its file."""
    parts = tomllib.loads(table.read_text())
    return [
        Fault(
            module["file"],
            *(row[name] for name in ("old", "new", "wrong")),
            tuple(module["tests"]),
            row.get("equivalent", ""),
        )
        for module in parts["module"]
        for row in module["fault"]
    ]


def apply(fault: Fault, root: Path) -> None:
    """Replace the one line of the file that reads `old`. ValueError unless there is exactly one."""
    path = root / fault.file
    lines = path.read_text().splitlines(keepends=True)
    places = [number for number, line in enumerate(lines) if line.strip() == fault.old]
    if len(places) != 1:
        raise ValueError(f"{fault.file} has {len(places)} lines {fault.old!r}: copy the line as it is now, once.")
    lines[places[0]] = lines[places[0]].replace(fault.old, fault.new)
    path.write_text("".join(lines))


def copy_tree(root: Path, folder: Path) -> Path:
    """What the tests need of `root`, in `folder`."""
    for name in COPIED:
        take = shutil.copytree if (root / name).is_dir() else shutil.copy
        take(root / name, folder / name)
    return folder


def run_tests(tests: Sequence[str], fault: Fault | None = None, root: Path = ROOT) -> tuple[str, float, str]:
    """Whether the tests passed, failed or ran out of time in a copy of the tree with the fault, the seconds, and the
    end of what they printed."""
    with TemporaryDirectory() as folder:
        copy = copy_tree(root, Path(folder))
        if fault is not None:
            apply(fault, copy)
        command = [sys.executable, *PYTEST, "--hypothesis-seed=0", *tests]
        environment = os.environ | SETTINGS | {"PYTHONPATH": folder}
        start = time.perf_counter()
        try:
            done = subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return "timed out", time.perf_counter() - start, ""
        outcome = "failed" if done.returncode else "passed"
        return outcome, time.perf_counter() - start, (done.stdout + done.stderr)[-2000:]


def judge(fault: Fault, root: Path = ROOT) -> Verdict:
    """Run the tests of a fault's file against it."""
    outcome, seconds, _ = run_tests(fault.tests, fault, root)
    return Verdict(fault, {"failed": "killed", "passed": "survived"}.get(outcome, outcome), seconds)


def score(verdicts: Sequence[Verdict]) -> float:
    """The share of the faults killed, equivalent ones left out; 0 where an equivalent one was killed after all."""
    if not all(verdict.expected for verdict in verdicts if verdict.fault.equivalent):
        return 0.0
    counted = [verdict for verdict in verdicts if not verdict.fault.equivalent]
    return sum(verdict.expected for verdict in counted) / max(len(counted), 1)


def main(words: Sequence[str]) -> int:
    """The exit code."""
    faults = [f for f in read_faults() if not words or any(word in f.file or word in f.wrong for word in words)]
    # One copy at the start: the tree may be edited while the faults run.
    with TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        frozen = copy_tree(ROOT, Path(folder))
        sets = list(dict.fromkeys(fault.tests for fault in faults))
        baselines = pool.map(lambda tests: run_tests(tests, root=frozen), sets)
        for tests, (outcome, seconds, printed) in zip(sets, baselines, strict=True):
            print(f"{outcome:9} {seconds:5.1f} s  without a fault: {' '.join(tests)}", flush=True)
            if outcome != "passed":
                print(f"{printed}\nThese tests have to pass before a fault can fail them.")
                return 1
        verdicts = []
        for verdict in pool.map(lambda fault: judge(fault, frozen), faults):
            verdicts.append(verdict)
            mark = "equivalent" if verdict.fault.equivalent and verdict.expected else verdict.outcome
            print(f"{mark:10} {verdict.seconds:5.1f} s  {verdict.fault.file}: {verdict.fault.wrong}", flush=True)
    missed = [verdict for verdict in verdicts if not verdict.expected]
    for fault, outcome, _ in missed:
        print(f"\n{outcome}: {fault.file}: {fault.wrong}\n  - {fault.old}\n  + {fault.new}")
    reached = score(verdicts)
    counted = sum(not fault.equivalent for fault in faults)
    print(f"\n{reached:.1%} of {counted} faults killed, {len(faults) - counted} more are equivalent to no fault.")
    return 0 if reached >= LEAST_SCORE else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
