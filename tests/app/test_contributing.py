"""The page on contributing adds a method: followed to the letter in a copy of the project, it passes the contracts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHAPTER = re.search(
    r"## Add a method in an afternoon\n(.*?)\n## ", (ROOT / "docs" / "contributing.md").read_text(), re.DOTALL
)
NEW_FILE = re.compile(r"^`(?P<file>[\w./]+)`:\n\n```\w+\n(?P<text>.*?)```", re.DOTALL | re.MULTILINE)
NEW_LINES = re.compile(
    r"In\s`(?P<file>[\w./]+)`,\sbelow\sthe\sline\s`(?P<anchor>[^`]+)`:\n\n```\w+\n(?P<text>.*?)```", re.DOTALL
)
COPIED = ("socket_theory", "socket_gpu", "tests", "docs", "pyproject.toml")


def follow(chapter: str, project: Path) -> list[Path]:
    """Make every file and every change that the chapter tells; the places that were touched, a new folder being one."""
    touched = []
    for step in NEW_FILE.finditer(chapter):
        file = project / step["file"]
        file.parent.mkdir(parents=True, exist_ok=True)
        assert not file.exists()
        file.write_text(step["text"])
        touched.append(file.parent)
    for step in NEW_LINES.finditer(chapter):
        file = project / step["file"]
        lines = file.read_text().splitlines(keepends=True)
        assert lines.count(step["anchor"] + "\n") == 1, step["anchor"]
        place = lines.index(step["anchor"] + "\n") + 1
        file.write_text("".join([*lines[:place], step["text"], *lines[place:]]))
        touched.append(file)
    return sorted(set(touched))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("project")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "benchmarks", "_build"))
        else:
            shutil.copy(source, copy / name)
    assert CHAPTER is not None
    assert len(follow(CHAPTER[1], copy)) == 4
    return copy


def run(project: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_method_keeps_every_contract(project: Path) -> None:
    said = run(project, "pytest", "-q", "-p", "no:cacheprovider", "tests/contracts", "-k", "SignSketch")
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None
    assert int(passed[1]) > 15


def test_the_reference_and_the_house_accept_it(project: Path) -> None:
    reference = "tests/app/test_docs.py::test_the_reference_documents_every_public_name_and_every_bound"
    exported = "tests/app/test_docs.py::test_the_reference_lists_what_the_package_exports"
    run(project, "pytest", "-q", "-p", "no:cacheprovider", reference, exported, "tests/core/test_imports.py")


def test_a_score_that_breaks_a_promise_is_found(project: Path) -> None:
    """The control: the same method with scores that depend on the padding in front of a sequence."""
    estimator = project / "socket_theory" / "sign_sketch" / "estimator.py"
    right = estimator.read_text()
    wrong = right.replace("scores[row, head, valid] = total", "scores[row, head, valid] = total * (-1) ** valid.start")
    assert wrong != right
    estimator.write_text(wrong)
    try:
        with pytest.raises(AssertionError, match="test_padding_changes_nothing"):
            run(project, "pytest", "-q", "-p", "no:cacheprovider", "tests/contracts", "-k", "SignSketch and padding")
    finally:
        estimator.write_text(right)
