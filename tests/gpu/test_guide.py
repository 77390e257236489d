"""The code of the guide's GPU page runs."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu
PAGE = Path(__file__).parents[2] / "docs" / "guide" / "gpu.md"


def test_the_code_of_the_gpu_page_runs_and_prints_what_it_says(capsys):
    blocks = re.findall(r"```\{code-block\} python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 6
    code = "\n".join(blocks)
    exec(compile(code, PAGE.name, "exec"), {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*\)  # (.*)", code)
