"""The Python of the pages runs and prints what they say; every claim has its proof and its committed numbers."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import socket_theory
from socket_theory.claims.registry import CLAIMS, run_by_id
from socket_theory.core.definition import METHODS
from socket_theory.core.method import Method
from socket_theory.core.rng import Key

ROOT = Path(__file__).parents[2]
THEORY = sorted((ROOT / "docs").glob("theory/**/*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("guide/*.md")), *THEORY]
BLOCKS = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<output>.*?)```\n)?", re.DOTALL)
BOXES = re.compile(
    r"^```\{claim\} (?P<id>\S+)\n(?P<check>.+?)\n```$(?P<proof>.+?)(?=^```\{claim\}|\Z)", re.DOTALL | re.MULTILINE
)
EXACT = ("S2.cold", "S2.hot", "S5.variance-bound", "S6.slope", "S11", "S13.bound")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs_and_prints_what_it_says(page: Path, tmp_path: Path) -> None:
    names: dict[str, object] = {}
    with contextlib.chdir(tmp_path):
        for block in BLOCKS.finditer(page.read_text()):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(block["code"], str(page), "exec"), names)
            assert printed.getvalue() == (block["output"] or "")


def test_the_readme_and_the_first_guide_have_code() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "guide" / "first_decode.md"):
        assert BLOCKS.search(page.read_text())


def test_the_readme_has_the_two_commands_that_ci_runs() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("pip install -e ") and " && " in line] == [
        "pip install -e . && socket-theory verify",
        "pip install -e '.[test]' && pytest",
    ]


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=os.path.basename)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    if "generated" in page.parts:
        return
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_reference_documents_every_public_name_and_every_bound() -> None:
    reference = "\n".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    documented = set(re.findall(r"^\.\. auto\w+:: ([\w.]+)", reference, re.MULTILINE))
    assert {name for name in socket_theory.__all__ if name != "__version__"} <= {
        name.split(".")[-1] for name in documented
    }
    files = [path for path in (ROOT / "socket_theory").rglob("*.py") if "bounds" in (path.parent.name, path.stem)]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files if path.stem != "__init__"}
    assert {"socket_theory.bounds.ratio", "socket_theory.santa.bounds"} < modules <= documented


def test_the_reference_lists_what_the_package_exports() -> None:
    listed = re.findall(r"\{py:obj\}`~socket_theory\.(\w+)`", (ROOT / "docs" / "reference" / "index.md").read_text())
    assert sorted([*listed, *METHODS, "__version__"]) == sorted(socket_theory.__all__)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_setting_of_a_method_is_documented_by_it(method: type[Method]) -> None:
    documented = inspect.getdoc(method) or ""
    _, _, parameters = documented.partition("Parameters\n----------\n")
    names = {name for line in re.findall(r"^[a-z]\w*(?:, \w+)*", parameters, re.MULTILINE) for name in line.split(", ")}
    assert {field.name for field in fields(method)} <= names


def test_the_errors_of_the_default_temperature_are_those_of_the_run() -> None:
    page = (ROOT / "docs" / "guide" / "real_attention.md").read_text()
    rows = json.loads((ROOT / "docs" / "benchmarks" / "attention-smollm2.json").read_text())["rows"]
    table = re.findall(r"^\| (tanh\w*) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE)
    assert ("tanh_scaled", "0.4") in {row[:2] for row in table}
    for query_map, temperature, *errors in table:
        settings = {"query_map": query_map, "temperature": float(temperature), "value_weight": False}
        for centred, error in zip((False, True), errors, strict=True):
            want = settings | {"center_keys": centred}
            (row,) = (row for row in rows if row["method"] == "socket" and want.items() <= row["settings"].items())
            assert f"{row['relative_error_mean']:.3f}" == error
            assert f"{row['standard_error']:.3f}" == "0.006"


def test_the_four_papers_are_cited_and_linked() -> None:
    cited = re.findall(r"eprint += \{([\d.]+)\}", (ROOT / "docs" / "citation.md").read_text())
    links = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    assert len(cited) == 4
    assert set(links.values()) == {f"https://arxiv.org/abs/{number}" for number in cited}


def test_every_claim_has_its_box_and_a_proof_behind_it() -> None:
    boxes = [box for page in THEORY for box in BOXES.finditer(page.read_text())]
    assert sorted(box["id"] for box in boxes) == sorted(claim.id for claim in CLAIMS)
    for box in boxes:
        assert box["check"].strip(), box["id"]
        assert box["proof"].count("*Proof.*") == 1, box["id"]
        assert r"\square" in box["proof"], box["id"]


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    rows = json.loads((ROOT / "docs" / "benchmarks" / "verify.json").read_text())
    return {row["id"]: row for row in rows}


def test_the_committed_results_cover_the_registry_and_are_verified(results: dict[str, dict[str, Any]]) -> None:
    assert list(results) == [claim.id for claim in CLAIMS]
    assert all(row["holds"] and row["control_rejected"] for row in results.values())


@pytest.mark.parametrize("claim_id", EXACT)
def test_the_committed_results_are_those_of_this_code(results: dict[str, dict[str, Any]], claim_id: str) -> None:
    """Of the claims that draw no samples, so that their numbers come back in a moment."""
    measured, row = run_by_id(claim_id, Key.from_seed(0), "full").measurement, results[claim_id]
    again = (measured.observed, measured.allowed, measured.tightness)
    assert again == pytest.approx((row["observed"], row["allowance"], row["tightness"]), rel=1e-6)
