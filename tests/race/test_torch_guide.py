"""The code of the guide to training runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="pip install 'socket-theory[torch]'")

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "race_training.md"
BLOCKS = re.compile(r"```\{code-block\} python\n(.*?)```", re.DOTALL)


def test_the_code_of_the_page_runs() -> None:
    names: dict[str, object] = {}
    blocks = BLOCKS.findall(PAGE.read_text())
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
