"""The shape of the packages: what an import loads, names, sizes and metadata."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import socket_theory

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for package in ("socket_theory", "socket_gpu") for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 200

THIRD_PARTY = {
    "numpy", "scipy", "click", "rich", "joblib", "matplotlib", "jinja2", "platformdirs", "pytest", "hypothesis",
    "torch", "transformers", "gguf", "accelerate", "cupy", "ml_dtypes", "dask", "ray", "flashinfer", "triton",
}  # fmt: skip


def module_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def loaded_by(statement: str) -> set[str]:
    """Top-level modules outside the standard library that a statement brings into a fresh interpreter."""
    code = f"import sys; old = set(sys.modules); {statement}; print(*(set(sys.modules) - old), sep='\\n')"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    names = {name.split(".")[0] for name in output.split()} - sys.stdlib_module_names
    return {name for name in names if "cython" not in name}


def test_import_socket_theory_loads_numpy_only() -> None:
    assert loaded_by("import socket_theory") == {"socket_theory", "numpy"}


def test_import_socket_gpu_does_not_load_cupy() -> None:
    assert "cupy" not in loaded_by("import socket_gpu")


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_no_file_is_longer_than_a_reader_can_hold(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_no_module_is_named_like_a_top_level_one() -> None:
    names = {path.parent.name if path.name == "__init__.py" else path.stem for path in MODULES} - {"__main__"}
    assert len(names) > 10
    assert not names & (sys.stdlib_module_names | THIRD_PARTY)


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_validation_does_not_rest_on_assert(path: Path) -> None:
    if path.name != "testing.py":
        assert not [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)]


def test_the_command_line_states_the_version_of_the_package() -> None:
    command = [sys.executable, "-m", "socket_theory", "--version"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert output.split()[-1] == socket_theory.__version__


def test_every_public_name_exists_and_is_documented() -> None:
    assert len(socket_theory.__all__) > 10
    for name in socket_theory.__all__:
        assert name == "__version__" or getattr(socket_theory, name).__doc__, name


def test_extras_and_groups() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    assert set(extras) == {"test", "torch", "llm", "gpu-cuda12", "gpu-cuda13"}
    assert set(project["dependency-groups"]) == {"dev", "docs", "notebooks"}
    assert not [line for line in extras["test"] if line.startswith("torch")]
    assert set(extras["torch"]) <= set(extras["llm"])
    assert project["project"]["scripts"] == {"socket-theory": "socket_theory.cli:main"}


@pytest.mark.parametrize("package", ["socket_theory", "socket_gpu"])
def test_type_information_is_shipped(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
