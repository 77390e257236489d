"""What every test shares: Hypothesis profiles, and what happens where an optional extra is missing."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ALL_EXTRAS_REQUIRED = os.environ.get("REQUIRE_ALL_EXTRAS") == "1"

try:
    from hypothesis import settings
except ImportError:
    pass
else:
    # Hypothesis loads a profile of its own when CI is set, so ours is always loaded by name.
    settings.register_profile("dev", max_examples=20, deadline=None)
    settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, database=None, print_blob=True)
    settings.register_profile("nightly", max_examples=2000, deadline=None)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def _module(file: Path) -> ModuleType:
    """A file that is in no package, as a module of its own."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def require_extra() -> Callable[..., Any]:
    """`require_extra("llm", "torch", "gguf")` imports those modules, or skips with the line that installs them.

    One module is returned as itself, several as a tuple. Under REQUIRE_ALL_EXTRAS=1 a missing one fails the
    test, unless the extra is a GPU one.
    """

    def require(extra: str, *modules: str) -> ModuleType | tuple[ModuleType, ...]:
        try:
            found = tuple(importlib.import_module(name) for name in modules)
        except ImportError as error:
            message = f"{error}: pip install 'socket-theory[{extra}]'"
            if ALL_EXTRAS_REQUIRED and not extra.startswith("gpu"):
                pytest.fail(message, pytrace=False)
            pytest.skip(message)
        return found[0] if len(found) == 1 else found

    return require


@pytest.fixture(scope="session")
def docs_extension() -> Callable[[str], ModuleType]:
    """`docs_extension("santa_table")` imports a module of docs/_ext as Sphinx does, with its neighbours importable."""

    def load(name: str) -> ModuleType:
        folder = Path(__file__).parents[1] / "docs" / "_ext"
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(folder)
            return _module(folder / f"{name}.py")

    return load


@pytest.fixture(scope="session")
def cupy_on_cpu() -> ModuleType:
    """The module that stands in for CuPy where kernels are built for a CPU; skips without a compiler."""
    module = _module(Path(__file__).parent / "core" / "cuda_on_cpu" / "cupy_on_cpu.py")
    if module.COMPILER is None:
        pytest.skip(module.INSTALL)
    return module


@pytest.fixture(scope="module")
def gpu_on_cpu(cupy_on_cpu: ModuleType) -> Iterator[Any]:
    """The GPU backend, its kernels on the CPU, for as long as a module's tests run."""
    pytest.importorskip("ml_dtypes", reason="pip install 'socket-theory[test]'")
    from socket_gpu.core import _compile, _launch, backend
    from socket_gpu.registry import CupyBackend

    cached = (_compile._kernel, _launch._attribute, backend._require)
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        patch.setitem(sys.modules, "cupy", cupy_on_cpu.CupyOnCpu("cupy"))
        patch.setattr(backend, "missing_requirement", lambda: None)
        for function in cached:
            function.cache_clear()
        yield CupyBackend()
    for function in cached:
        function.cache_clear()


def _fail_if_skipped_for_an_extra(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn what `pytest.importorskip` leaves behind into a failure where every extra has to be there."""
    missing = re.search(r"could not import '([\w.]+)'", str(report.longrepr))
    if ALL_EXTRAS_REQUIRED and report.skipped and missing and not missing[1].startswith("cupy"):
        report.outcome = "failed"
        report.longrepr = f"REQUIRE_ALL_EXTRAS=1, but {missing[1]} cannot be imported here."


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped_for_an_extra(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped_for_an_extra(report)
    return report
