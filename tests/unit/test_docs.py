"""The Python of the README and of the guides runs as printed, and prints what the page says it prints."""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path

import pytest

import socket_theory

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("guide/*.md"))]
BLOCKS = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<output>.*?)```\n)?", re.DOTALL)


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
    modules = {path.stem for path in (ROOT / "socket_theory" / "bounds").glob("*.py")} - {"__init__", "arguments"}
    assert {f"socket_theory.bounds.{name}" for name in modules} <= documented
