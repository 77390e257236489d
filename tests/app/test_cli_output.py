"""`--json` and `--report` of every command: what is refused before a run, and what the run leaves."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from socket_theory.cli import main
from socket_theory.cli.deliver import deliver
from socket_theory.cli.output import Output, OutputFile, json_text
from socket_theory.cli.repeating import repeating_command

CLAIM = ("verify", "--claim", "C4", "--jobs", "1")
SMALL = "--tokens 50 --head-dim 8 --trials 2 --ks 2 --planes 2 --tables 3"
ONE_WORKER = {"LOKY_MAX_CPU_COUNT": "1"}
NOT_UTF8 = os.fsdecode(b"caf\xe9 'x")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def commands(node: click.Command = main, path: str = "") -> dict[str, click.Command]:
    if not isinstance(node, click.Group):
        return {path: node}
    found = [commands(child, f"{path} {name}".strip()) for name, child in node.commands.items()]
    return {name: child for part in found for name, child in part.items()}


def test_every_output_of_every_command_follows_the_one_rule() -> None:
    outputs = {
        (name, option.opts[0]): option
        for name, command in commands().items()
        for option in command.params
        if option.opts[0] in ("--json", "--report")
    }
    named = {name for name, _ in outputs}
    assert named == {
        "verify",
        "claims",
        "evaluate attention",
        "evaluate ranking",
        "evaluate learning",
        "evaluate tightness",
        "bench decode",
        "bench santa",
        "bench race",
    }
    assert all(isinstance(option.type, OutputFile) for option in outputs.values())


def test_what_cannot_be_written_is_refused_in_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for given, sentence in (
        (tmp_path, "is a directory: pass the name of a file in it."),
        (f"{tmp_path}/new/", "is a directory: pass the name of a file in it."),
        (tmp_path / "missing" / "out", "is no directory: make it first."),
        (tmp_path / "file" / "out", "is no directory: make it first."),
        (tmp_path / ("n" * 300), "cannot be written: File name too long."),
        (tmp_path / "loop", "cannot be written: Too many levels of symbolic links."),
        ("/proc/out", "cannot be written: No such file or directory."),
    ):
        result = invoke(*CLAIM, "--json", given)
        assert result.exit_code == 2, given
        assert sentence in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]
    assert (tmp_path / "file").read_text() == "kept"


def test_a_wrong_option_elsewhere_leaves_the_old_result(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("kept")
    assert invoke("verify", "--claim", "nothing", "--json", tmp_path / "old.json").exit_code == 2
    assert (tmp_path / "old.json").read_text() == "kept"


def test_two_outputs_in_one_place_are_refused(tmp_path: Path) -> None:
    for one, two in (("-", "/dev/stdout"), (tmp_path / "a", f"{tmp_path}/../{tmp_path.name}/a")):
        result = invoke(*CLAIM, "--json", one, "--report", two)
        assert result.exit_code == 2
        assert "is the place of another output already" in result.output


def test_a_link_stays_and_its_file_is_replaced_with_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "out.json").write_text("old")
    (tmp_path / "real" / "out.json").chmod(0o640)
    (tmp_path / "link.json").symlink_to(tmp_path / "real" / "out.json")
    assert invoke(*CLAIM, "--json", tmp_path / "link.json").exit_code == 0
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real" / "out.json").read_text())[0]["id"] == "C4"
    assert stat.S_IMODE((tmp_path / "real" / "out.json").stat().st_mode) == 0o640


def test_pipes_and_devices_are_written_to_and_stay(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE)
    assert invoke(*CLAIM, "--json", tmp_path / "pipe", "--report", "/dev/null").exit_code == 0
    assert json.loads(reader.communicate(timeout=20)[0])[0]["id"] == "C4"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_pipe_that_nobody_reads_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    result = invoke(*CLAIM, "--json", tmp_path / "pipe", "--report", tmp_path / "page.html")
    assert result.exit_code == 1
    assert "pipe' could not be written: nobody reads this pipe." in result.stderr
    assert (tmp_path / "page.html").exists()
    assert "C4" in result.stdout


def test_content_that_cannot_be_made_loses_no_other_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        (Output.of(str(tmp_path / "a.json")), lambda: json_text({"a": float("nan")})),
        (Output.of(str(tmp_path / "b.html")), lambda: "caf\udce9"),
    ]
    assert not deliver(files, lambda console: console.print("the table"), 80)
    assert not (tmp_path / "a.json").exists()
    assert (tmp_path / "b.html").read_bytes() == b"caf?"
    shown = capsys.readouterr()
    assert shown.out == "the table\n"
    assert "the content of" in shown.err
    assert "a.json' could not be made (ValueError" in shown.err


@pytest.mark.parametrize(
    ("given", "sentence"),
    [("", "an empty name was given"), ("/dev/fd/0", "reading only"), ("/dev/stdin", "reading only")],
)
def test_outputs_that_take_nothing_are_refused(given: str, sentence: str) -> None:
    descriptor = os.dup(0)
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        result = invoke(*CLAIM, "--json", given)
    finally:
        os.dup2(descriptor, 0)
        os.close(descriptor)
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())


def test_names_that_are_not_utf8_work(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {"q": draw.normal(size=(1, 2, 1, 8)), "positions": np.array([99])}
    arrays |= {name: draw.normal(size=(1, 1, 100, 8)) for name in "kv"}
    qkv = tmp_path / f"{NOT_UTF8}.npz"
    np.savez(qkv, **arrays)
    paths = [tmp_path / f"{NOT_UTF8}.{suffix}" for suffix in ("json", "html")]
    options = ("--density", 0.5, "--sink", 1, "--window", 1, "--json", paths[0], "--report", paths[1])
    result = invoke("evaluate", "attention", "--qkv", qkv, *options)
    assert result.exit_code == 0, result.output
    assert json.loads(paths[0].read_text())["model"] == "caf\N{REPLACEMENT CHARACTER} 'x.npz"
    assert "caf\\xe9 \\x27x.npz" in paths[1].read_text(encoding="utf-8")


def test_the_command_that_repeats_a_run_is_what_a_shell_reads() -> None:
    seen: list[str] = []

    @click.command("c")
    @click.option("--text")
    @click.pass_context
    def command(context: click.Context, text: str) -> None:
        seen.append(repeating_command(context))

    group = click.Group(commands=[command])
    group.main(["c", "--text", NOT_UTF8], standalone_mode=False)
    shell = ["bash", "-c", seen[0].replace("socket-theory c --text", "printf %s").replace(" --report report.html", "")]
    assert subprocess.run(shell, capture_output=True, check=True).stdout == os.fsencode(NOT_UTF8)


@pytest.mark.parametrize(
    ("redirection", "code", "errors"),
    [("| head -1", 0, ""), ("> /dev/full", 1, "Error: the results could not be printed: No space left on device.\n")],
)
@pytest.mark.parametrize("command", ["claims", f"evaluate ranking {SMALL}"])
def test_files_are_written_whatever_becomes_of_the_terminal(
    command: str, redirection: str, code: int, errors: str, tmp_path: Path
) -> None:
    path = tmp_path / "out.json"
    line = f"set -o pipefail; {sys.executable} -m socket_theory {command} --json {path} {redirection}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=os.environ | ONE_WORKER)
    said = [text for text in done.stderr.splitlines(True) if not text.startswith(("Wrote ", "ranking "))]
    assert (done.returncode, "".join(said)) == (code, errors)
    assert json.loads(path.read_text())


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_characters_that_a_terminal_lacks_are_replaced(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "socket_theory", "evaluate", "ranking", *SMALL.split()],
        capture_output=True,
        env=os.environ | ONE_WORKER | {"PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr
    assert b"tanh ?=0.4" in done.stdout
