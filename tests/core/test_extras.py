"""A skip for a missing extra names its install line, and is a failure where every extra has to be there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
NEEDS_AN_EXTRA = {
    "module_level": "import pytest\npytest.importorskip('absent_module')\ndef test_nothing(): pass\n",
    "in_a_test": "import pytest\ndef test_one(): pytest.importorskip('absent_module')\n",
    "by_fixture": "def test_one(require_extra): require_extra('llm', 'json', 'absent_module')\n",
}
NEEDS_A_GPU = {
    "gpu_module": "import pytest\npytest.importorskip('cupy_absent')\ndef test_nothing(): pass\n",
    "gpu_fixture": "def test_one(require_extra): require_extra('gpu-cuda12', 'absent_module')\n",
}


def outcomes(folder: Path, *, required: bool) -> str:
    """The summary of pytest over the samples above under this suite's conftest."""
    shutil.copy(CONFTEST, folder / "conftest.py")
    for name, source in (NEEDS_AN_EXTRA | NEEDS_A_GPU).items():
        (folder / f"test_{name}.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-ra", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
    environment = os.environ | {"REQUIRE_ALL_EXTRAS": "1" if required else "0"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder).stdout


def test_a_missing_extra_skips_with_its_install_line(tmp_path: Path) -> None:
    summary = outcomes(tmp_path, required=False)
    assert "5 skipped" in summary
    assert "No module named 'absent_module': pip install 'socket-theory[llm]'" in summary


def test_a_missing_extra_fails_where_all_are_required_unless_it_is_a_gpu_one(tmp_path: Path) -> None:
    summary = outcomes(tmp_path, required=True)
    assert "2 failed, 2 skipped, 1 error" in summary
    for name in NEEDS_AN_EXTRA:
        assert any(line.startswith(("FAILED", "ERROR")) and name in line for line in summary.splitlines())


def test_several_modules_come_back_as_a_tuple(require_extra: pytest.FixtureRequest) -> None:
    assert require_extra("test", "json", "os") == (__import__("json"), os)  # type: ignore[operator]
    assert require_extra("test", "os") is os  # type: ignore[operator]
