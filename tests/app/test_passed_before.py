"""CI's second run of the tests leaves out what passed in the first, and nothing that may see something else there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("xdist", reason="pip install 'socket-theory[test]'")

PLUGINS = Path(__file__).parents[2] / ".ci"
TWO = "-n 2"
FILES = {
    "test_plain": "def test_one(): pass\ndef test_two(): pass",
    "test_skips": "import pytest\ndef test_one(): pytest.importorskip('an_extra')\ndef test_two(): pass",
    "test_collects": "import pytest\npytest.importorskip('an_extra')\ndef test_one(): pass",
    "test_looks": "from importlib.util import find_spec\ndef test_one(): find_spec('an_extra')",
    "test_reads_version": "from importlib import metadata\n"
    "def test_one():\n    try: metadata.version('an_extra')\n    except metadata.PackageNotFoundError: pass",
    "test_hides": "import sys, pytest\n"
    "def test_one(monkeypatch):\n    monkeypatch.setitem(sys.modules, 'json', None)\n"
    "    with pytest.raises(ImportError): import json",
    "test_starts": "import subprocess, sys\ndef test_one(): subprocess.run([sys.executable, '-c', ''], check=True)",
    "test_nests": "import os\ndef test_one(): assert 'PYTEST_ADDOPTS' not in os.environ",
}
MAY_DIFFER = {"test_skips": 2, "test_collects": 1, "test_looks": 1, "test_reads_version": 1, "test_starts": 1}
UNSEEN = {"test_starts": 1}


def run(project: Path, *paths: Path, options: str) -> str:
    """What pytest says of the project with these folders to import from."""
    told = {
        "PYTEST_ADDOPTS": f"-p passed_before {options}",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "xdist.plugin",
        "PYTHONPATH": os.pathsep.join(map(str, (PLUGINS, *paths))),
    }
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=project, env=os.environ | told, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(said: str) -> dict[str, int]:
    """How many tests of each file were run."""
    names = re.findall(r"^(\w+)\.py::\w+ (?:PASSED|SKIPPED)", said, re.MULTILINE)
    return {name: names.count(name) for name in names}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name, source in FILES.items():
        (folder / f"{name}.py").write_text(source + "\n")
    return folder


@pytest.fixture(scope="module", params=["", TWO], ids=["one process", "two processes"])
def record(project: Path, request: pytest.FixtureRequest) -> Path:
    """What a first run without the extra wrote."""
    run(project, options=f"{request.param} --write-passed=record.json")
    return project / "record.json"


@pytest.fixture(scope="module")
def extra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the module that the first run lacked."""
    folder = tmp_path_factory.mktemp("extra")
    (folder / "an_extra.py").touch()
    return folder


def test_what_may_see_the_new_module_or_cannot_be_seen_is_run_again(project: Path, record: Path, extra: Path) -> None:
    said = run(project, extra, options=f"--leave-out-passed={record}")
    assert files(said) == MAY_DIFFER
    assert "4 tests that passed before are left out" in said


def test_two_processes_leave_out_the_same(project: Path, record: Path, extra: Path) -> None:
    said = run(project, extra, options=f"{TWO} --leave-out-passed={record}")
    assert "4 tests that passed before are left out" in said
    assert f" {sum(MAY_DIFFER.values())} passed in " in said


def test_a_package_without_a_module_of_its_name_counts_as_well(project: Path, record: Path, tmp_path: Path) -> None:
    metadata = tmp_path / "an_extra-1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: an_extra\nVersion: 1.0\n")
    assert "test_reads_version" in files(run(project, tmp_path, options=f"--leave-out-passed={record}"))


def test_in_the_same_environment_only_other_processes_and_skips_are_run_again(project: Path, record: Path) -> None:
    assert files(run(project, options=f"--leave-out-passed={record}")) == UNSEEN | {"test_skips": 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (None, "is not there"),
        ({"installed": {"an_extra": "1.0"}}, "there is another version than before of an_extra"),
        ({"missed": {"": ["json"]}}, "what all of them share was missing a module"),
    ],
)
def test_without_a_record_that_fits_every_test_is_run(
    change: dict[str, object] | None, reason: str, project: Path, record: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "record.json"
    if change is not None:
        changed.write_text(json.dumps(json.loads(record.read_text()) | change))
    said = run(project, options=f"--leave-out-passed={changed}")
    assert files(said).keys() == FILES.keys() - {"test_collects"}
    assert "Every test is run: " in said
    assert reason in said
