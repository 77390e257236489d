"""The mutation check stays runnable: every fault still fits its file, and the verdicts mean what they say."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load() -> ModuleType:
    """tests/mutate.py, which is a script and not a module of the package."""
    spec = importlib.util.spec_from_file_location("mutate", ROOT / "tests" / "mutate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mutate = load()
FAULTS = mutate.read_faults()


def test_every_fault_changes_one_line_of_a_file_that_still_compiles(tmp_path: Path) -> None:
    for fault in FAULTS:
        source = ROOT / fault.file
        target = tmp_path / fault.file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        mutate.apply(fault, tmp_path)
        before, after = source.read_text().splitlines(), target.read_text().splitlines()
        assert sum(old != new for old, new in zip(before, after, strict=True)) == 1, fault.wrong
        if fault.file.endswith(".py"):
            compile(target.read_text(), fault.file, "exec")


def test_the_table_covers_what_it_has_to() -> None:
    assert sum(not fault.equivalent for fault in FAULTS) >= 30
    assert len({(fault.file, fault.old, fault.new) for fault in FAULTS}) == len(FAULTS)
    files = {fault.file.removeprefix("socket_theory/").removesuffix(".py") for fault in FAULTS}
    assert {"core/rng", "core/hashing", "socket_lsh/law", "core/selection", "core/attention"} <= files
    assert {file.split("/")[0] for file in files} >= {"core", "bounds", "socket_lsh", "santa", "race"}
    for fault in FAULTS:
        assert fault.wrong.strip()
        assert all((ROOT / test).is_file() for test in fault.tests), fault.tests


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A tree of the same shape with one function, one test of it, and nothing else."""
    for folder in ("socket_theory", "socket_gpu", "tests"):
        (tmp_path / folder).mkdir()
    (tmp_path / "socket_theory" / "__init__.py").write_text("def last(count):\n    return count - 1\n")
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['gpu']\n")
    source = "from socket_theory import last\n\n\ndef test_last():\n    assert last(3) == 2\n"
    (tmp_path / "tests" / "test_last.py").write_text(source)
    return tmp_path


def fault(old: str, new: str, equivalent: str = "") -> tuple[str, ...]:
    wrong, tests = "the index", ("tests/test_last.py",)
    return mutate.Fault("socket_theory/__init__.py", old, new, wrong, tests, equivalent)


def test_a_fault_that_fails_a_test_is_killed_and_the_tree_is_left_alone(project: Path) -> None:
    pytest.importorskip("hypothesis", reason="pip install 'socket-theory[test]'")
    assert mutate.run_tests(("tests/test_last.py",), root=project)[0] == "passed"
    outcome, _, printed = mutate.run_tests(("tests/test_last.py",), fault("return count - 1", "return count"), project)
    assert outcome == "failed"
    assert "FAILED tests/test_last.py::test_last" in printed
    assert mutate.judge(fault("return count - 1", "return count"), project).outcome == "killed"
    assert mutate.judge(fault("return count - 1", "return abs(count - 1)"), project).outcome == "survived"
    assert "return count - 1" in (project / "socket_theory" / "__init__.py").read_text()


def test_a_test_that_is_skipped_for_want_of_an_extra_fails_and_names_it(project: Path) -> None:
    """It would see no fault."""
    pytest.importorskip("hypothesis", reason="pip install 'socket-theory[test]'")
    shutil.copy(ROOT / "tests" / "conftest.py", project / "tests")
    (project / "tests" / "test_last.py").write_text("import pytest\n\npytest.importorskip('not_here')\n")
    outcome, _, printed = mutate.run_tests(("tests/test_last.py",), root=project)
    assert outcome == "failed"
    assert "not_here cannot be imported here" in printed


def test_a_line_that_is_not_there_once_is_refused(project: Path) -> None:
    with pytest.raises(ValueError, match=r"socket_theory/__init__.py has 0 lines 'return count': copy the line"):
        mutate.apply(fault("return count", "return 0"), project)


def test_the_score_counts_killed_faults_and_leaves_equivalent_ones_out() -> None:
    killed, survived, slow = (mutate.Verdict(fault("a", "b"), o, 1.0) for o in ("killed", "survived", "timed out"))
    same = mutate.Verdict(fault("a", "b", "nothing changes"), "survived", 1.0)
    assert mutate.score([killed, killed, killed, same]) == 1
    assert mutate.score([killed, survived, slow, same, killed]) == 0.5
    refuted = same._replace(outcome="killed")
    assert mutate.score([killed, refuted]) == 0
