"""`evaluate learning`: what it writes, prints and draws, and the sentences for wrong options."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from socket_theory.cli import main
from socket_theory.evaluate.learning.summary import name_of

SMALL = ("--steps", 4, "--batch", 2, "--context", 24, "--width", 16, "--tables", "2,1", "--planes", 2)


@pytest.fixture(autouse=True)
def on_the_cpu(require_extra: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(require_extra("torch", "torch").cuda, "is_available", lambda: False)


def learning(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", "learning", *map(str, (*SMALL, *arguments))])


def test_the_results_are_printed_written_and_drawn(tmp_path: Path, docs_extension: Any) -> None:
    output, figure = tmp_path / "learning.json", tmp_path / "learning.svg"
    done = learning("--seeds", "3,1", "--json", output, "--figure", figure, "--commit", "c0ffee1234")
    assert done.exit_code == 0, done.output
    assert "torch has no GPU here: the models train on the CPU, in float32." in done.stderr
    record = json.loads(output.read_text())
    assert record["commit"] == "c0ffee1234"
    assert record["device"].startswith("CPU (")
    assert record["versions"].keys() >= {"python", "torch"}
    assert record["training"].items() >= {"steps": 4, "batch": 2, "context": 24, "tokens": 4 * 2 * 24}.items()
    names = ["RACE, P=2, L=1", "RACE, P=2, L=2", "angular, γ=2", "softmax"]
    assert [(run["seed"], name_of(run)) for run in record["runs"]] == [(s, name) for s in (1, 3) for name in names]
    assert all(run["steps"] == [0, 1, 2, 3, 4] and len(run["validation"]) == 5 for run in record["runs"])
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["attention", "seeds", "nats", "s.d."]
    assert [line.split("  ")[0] for line in lines[1:5]] == names
    assert max(map(len, lines[:5])) <= 110
    assert figure.read_text().count("RACE, P=2, L=1") == 1

    page = docs_extension("learning_table").fragment(record)
    assert page.startswith("CPU (")
    assert all(f"\n| {name} | " in page for name in names)
    assert page.count("<svg") == 2


def test_a_stopped_run_keeps_the_models_that_were_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from socket_theory.evaluate.learning import experiment

    trained, given = experiment.train, []

    def stops(*arguments: Any, **others: Any) -> Any:
        given.append(arguments)
        if len(given) == 3:
            raise KeyboardInterrupt
        return trained(*arguments, **others)

    monkeypatch.setattr(experiment, "train", stops)
    done = learning("--json", tmp_path / "out.json")
    assert done.exit_code == 130
    assert "Interrupted: the 2 models whose training was finished are kept." in done.stderr
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["stopped"] is True
    assert len(record["runs"]) == 2

    given[:] = [None, None]
    done = learning("--json", tmp_path / "none.json")
    assert done.exit_code == 130
    assert "Interrupted: no results were kept." in done.stderr
    assert not (tmp_path / "none.json").exists()


def test_wrong_options_are_named() -> None:
    for option, given, sentence in (
        ("--steps", "0", "--steps 0 was given: pass an integer of at least 1."),
        ("--seeds", "a", "'a' is not a list of integers: pass some such as 4,16,64."),
        ("--learning-rate", "0", "--learning-rate 0"),
        ("--beta", "16", "--beta 16 was given with --planes 2"),
        ("--planes", "0", "--planes 0 was given: pass an integer of at least 1."),
        ("--context", "900000", "--context 900000 was given for a text of"),
    ):
        done = learning(option, given)
        assert done.exit_code == 2, (option, done.output)
        assert sentence in " ".join(done.output.split()), done.output
        assert "Traceback" not in done.output


def test_without_torch_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from socket_theory.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "evaluate", "learning"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "Error: training needs an extra (no torch): pip install 'socket-theory[torch]'.\n"
