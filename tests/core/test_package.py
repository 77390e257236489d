"""The shape of the packages: what an import loads, who imports whom, names, sizes and metadata."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import socket_theory

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for package in ("socket_theory", "socket_gpu") for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 200

# Top to bottom: a module imports from its own row and from rows below it. Every module of the package that is
# not named here is a numerical one and belongs to the last row.
LAYERS = (
    {"cli", "report", "__main__"},
    {"evaluate"},
    {"claims"},
    {"backend_contract"},
    {"testing"},
    {"integrations"},
    {"estimators", "__init__"},
    {"bounds"},
    {"backend", "numpy_backend", "states"},
)
REFERENCE = [path for path in MODULES if path.is_relative_to(ROOT / "socket_theory")]
PARTS = {path.relative_to(ROOT / "socket_theory").parts[0].removesuffix(".py") for path in REFERENCE}

THIRD_PARTY = {
    "numpy", "scipy", "click", "rich", "joblib", "matplotlib", "jinja2", "platformdirs", "pytest", "hypothesis",
    "torch", "transformers", "gguf", "accelerate", "cupy", "ml_dtypes", "dask", "ray", "flashinfer", "triton",
}  # fmt: skip


def module_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_modules(path: Path) -> Iterator[str]:
    """Every module a file imports, also inside functions; `from a import b` gives a.b, whatever b is."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module_id(path)}:{node.lineno} uses a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module: str) -> int:
    """The row of `socket_theory.<part>...`; anything that is no file or folder is a name of the package's __init__."""
    part = module.split(".")[1]
    return next(
        (row for row, parts in enumerate(LAYERS) if (part if part in PARTS else "__init__") in parts), len(LAYERS)
    )


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


def test_the_layers_name_what_exists() -> None:
    assert {"cli", "evaluate", "claims", "estimators", "backend", "numpy_backend", "__init__", "__main__"} <= PARTS


@pytest.mark.parametrize("path", REFERENCE, ids=module_id)
def test_imports_point_downwards(path: Path) -> None:
    own = layer(".".join(path.relative_to(ROOT).with_suffix("").parts))
    upward = [name for name in imported_modules(path) if name.startswith("socket_theory.") and layer(name) < own]
    assert not upward


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_validation_does_not_rest_on_assert(path: Path) -> None:
    if path.name != "testing.py":
        assert not [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)]


def test_hugging_face_is_touched_by_one_file() -> None:
    users = {
        path.name for path in MODULES if any(name.split(".")[0] == "transformers" for name in imported_modules(path))
    }
    assert users <= {"hugging_face.py"}


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
