"""Run in a second environment only the tests that may see something else there than in a first one.

    pytest -p passed_before --write-passed=FILE        writes what passed, and what each test file did not find
    pytest -p passed_before --leave-out-passed=FILE    leaves those tests out whose file would find nothing more now

A module that is asked for and not found counts for the file whose tests were being collected or run, whether a test or
what it calls asks for it, by an import or for its version. What another Python process imports is not seen, so that
the tests of a file that starts one are all run again. Every test is run where FILE is not there, or was written with
another Python or other versions of the packages that were installed then. Without the = pytest takes FILE for a test.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Generator
from contextlib import suppress
from importlib import metadata, util
from pathlib import Path
from typing import Any

import pytest

ANOTHER_PROCESS = "another Python process"


class Asked:
    """The last place where Python looks for a module: it finds nothing, and notes for which test file."""

    def __init__(self) -> None:
        self.by_file: dict[str, set[str]] = defaultdict(set)
        self.file = ""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        self.by_file[self.file].add(name)

    def find_distributions(self, context: Any = None) -> list[Any]:
        if name := getattr(context, "name", None):
            self.by_file[self.file].add(name)
        return []

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.file and event == "subprocess.Popen" and sys.executable in " ".join(map(str, arguments[:2])):
            self.by_file[self.file].add(ANOTHER_PROCESS)


def is_found(name: str) -> bool:
    """Whether a module or package of this name is found now."""
    if name == ANOTHER_PROCESS:
        return True
    with suppress(ImportError, ValueError):
        if util.find_spec(name) is not None:
            return True
    return any(metadata.Distribution.discover(name=name))


def installed() -> dict[str, str]:
    """The version of each package, and of Python; those of what installs packages are of no matter."""
    found = {package.name: package.version for package in metadata.distributions()}
    return {name: found[name] for name in found.keys() - {"pip", "setuptools"}} | {"Python": sys.version}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("passed before")
    group.addoption("--write-passed", metavar="FILE", help="write which tests passed, and what was not found")
    group.addoption("--leave-out-passed", metavar="FILE", help="leave out the tests that passed before")


def pytest_configure(config: pytest.Config) -> None:
    # A test that runs pytest is not to write or leave out anything. Where xdist's workers run the tests they read this.
    if hasattr(config, "workerinput") or not getattr(config.option, "tx", None):
        os.environ.pop("PYTEST_ADDOPTS", None)
    if path := config.getoption("write_passed"):
        config.pluginmanager.register(Writer(Path(path).absolute(), config))
    if path := config.getoption("leave_out_passed"):
        config.pluginmanager.register(Reader(Path(path).absolute()))


class Writer:
    """Notes what passes and what is missed, and writes both at the end, with what xdist's workers missed."""

    def __init__(self, path: Path, config: pytest.Config) -> None:
        self.path, self.asked = path, Asked()
        self.outcomes: dict[str, set[str]] = defaultdict(set)
        self.as_worker: dict[str, Any] | None = getattr(config, "workeroutput", None)
        sys.meta_path.append(self.asked)
        sys.addaudithook(self.asked.hear)

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Generator[None, Any, Any]:
        self.asked.file = collector.nodeid.split("::")[0]
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self.asked.file = item.nodeid.split("::")[0]
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.outcomes[report.nodeid].add(report.outcome)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        for file, names in node.workeroutput["missed"].items():
            self.asked.by_file[file].update(names)

    def pytest_sessionfinish(self) -> None:
        sys.meta_path.remove(self.asked)
        missed = {
            file: [name for name in sorted(names) if name == ANOTHER_PROCESS or not is_found(name)]
            for file, names in self.asked.by_file.items()
        }
        if self.as_worker is not None:
            self.as_worker["missed"] = missed
            return
        passed = [test for test, outcomes in self.outcomes.items() if outcomes == {"passed"}]
        self.path.write_text(json.dumps({"installed": installed(), "missed": missed, "passed": passed}))


class Reader:
    """Deselects what passed before in a file that would miss the same again."""

    def __init__(self, path: Path) -> None:
        self.left_out, self.said = left_out(path)

    def pytest_report_header(self) -> str:
        return self.said

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in self.left_out])
        items[:] = [item for item in items if item.nodeid not in self.left_out]


def left_out(path: Path) -> tuple[set[str], str]:
    """The tests that need not be run again, and what to say of them."""
    if not path.is_file():
        return set(), f"Every test is run: {path} is not there."
    before, now = json.loads(path.read_text()), installed()
    if changed := [name for name, version in before["installed"].items() if now.get(name) != version]:
        return set(), f"Every test is run: there is another version than before of {', '.join(changed)}."
    again = {file for file, names in before["missed"].items() if any(map(is_found, names))}
    if "" in again:
        return set(), "Every test is run: what all of them share was missing a module that is there now."
    kept = {test for test in before["passed"] if test.split("::")[0] not in again}
    return kept, f"{len(kept)} tests that passed before are left out: their files would find nothing more now."
