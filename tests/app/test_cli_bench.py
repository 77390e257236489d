"""`bench decode` and `bench santa` without a GPU: what they refuse and write, and that a failed gate shows no speed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from socket_gpu import missing_requirement
from socket_gpu.bench.gate import GateError
from socket_gpu.santa import bench as santa
from socket_gpu.socket_lsh import bench as decode
from socket_gpu.socket_lsh.cases import GROUP_NAMES
from socket_theory.cli import bench, main

ROW = {
    "method": "socket",
    "settings": {"num_planes": 10},
    "batch": 1,
    "num_qo_heads": 32,
    "num_kv_heads": 8,
    "kv_len": 131072,
    "head_dim": 128,
    "nominal_bits": 600,
    "bits_per_token": 672,
    "kept_tokens": 3972,
    "us": 98.76,
    "us_quartiles": [97.5, 99.25],
    "us_longest": 120.5,
    "us_mean": 99.5,
    "ratio_to_best_dense": 1.94,
    "bytes": 10**8,
    "fraction_of_read_bandwidth": 0.347,
    "stage_us": {"score": 53.0, "select": 20.0, "attend": 25.76},
    "misses": {"steps": 0.02, "us": 150.0},
    "note": None,
}
ABSENT = ROW | {
    "method": "flashinfer",
    "settings": {"call": None},
    **dict.fromkeys(
        ["us", "us_quartiles", "us_longest", "us_mean", "ratio_to_best_dense", "fraction_of_read_bandwidth"]
    ),
    **dict.fromkeys(["stage_us", "misses"]),
    "note": "all not run: ModuleNotFoundError: No module named 'flashinfer'",
}
INDEX = ROW | {
    "method": "socket_append",
    "kept_tokens": None,
    "ratio_to_best_dense": None,
    "stage_us": None,
    "misses": None,
}

SANTA = ROW | {
    "method": "santa",
    "settings": {
        "num_samples": 128,
        "sampler": "phase_carried",
        "tile_len": 256,
        "seed": 0,
        "input": "capture layer 3, repeated",
    },
    "nominal_bits": 0,
    "bits_per_token": 0,
    "kept_tokens": 128,
    "stage_us": {"score": 94.0, "draw": 11.5},
    "misses": None,
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A machine with a GPU whose benchmark takes no time; filled with what it was asked for."""
    seen: dict[str, Any] = {}

    def record(commit: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        bandwidths = {"copy_bandwidth_tb_s": 2.9, "read_bandwidth_tb_s": 3.0}
        return {"device": "a GPU", "driver": "1", "versions": {}, "commit": commit, **bandwidths, "rows": rows}

    def run(groups: Any, capture: Any, commit: str, announce: Any) -> dict[str, Any]:
        announce("a case")
        seen.update(groups=tuple(groups), commit=commit)
        return record(commit, [ROW, ABSENT, INDEX])

    def run_santa(capture: Any, commit: str, announce: Any) -> dict[str, Any]:
        announce("a case")
        seen.update(capture=capture, commit=commit)
        return record(commit, [SANTA])

    monkeypatch.setattr(bench, "missing_requirement", lambda: None)
    monkeypatch.setattr(decode, "bench_decode", run)
    monkeypatch.setattr(santa, "bench_santa", run_santa)
    return seen


def run(*arguments: object, command: str = "decode") -> Result:
    return CliRunner().invoke(main, ["bench", command, *map(str, arguments)])


@pytest.mark.parametrize("command", ["decode", "santa"])
@pytest.mark.skipif(missing_requirement() is None, reason="this machine has a GPU")
def test_without_a_gpu_it_says_what_is_missing(command: str) -> None:
    done = run(command=command)
    assert done.exit_code == 2
    assert missing_requirement() in " ".join(done.output.split())
    assert "Traceback" not in done.output


def test_the_command_needs_nothing_of_a_gpu_to_be_listed() -> None:
    done = CliRunner().invoke(main, ["bench", "--help"])
    assert done.exit_code == 0
    assert "decode" in done.output
    assert "santa" in done.output
    assert "cupy" not in sys.modules or missing_requirement() is None


def test_all_groups_are_the_default(asked: dict[str, Any]) -> None:
    assert run("--commit", "c0ffee").exit_code == 0
    assert asked["groups"] == GROUP_NAMES


def test_groups_are_chosen_by_name(asked: dict[str, Any]) -> None:
    assert run("--only", "growth", "--only", "index", "--commit", "c0ffee").exit_code == 0
    assert asked == {"groups": ("growth", "index"), "commit": "c0ffee"}
    done = run("--only", "everything")
    assert done.exit_code == 2
    assert "'main', 'settings', 'variants', 'rows', 'growth', 'index'" in done.output


def test_the_table_and_the_json_hold_every_row(asked: dict[str, Any], tmp_path: Path) -> None:
    done = run("--json", tmp_path / "decode.json", "--commit", "c0ffee")
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "decode.json").read_text())
    fields = ["device", "driver", "versions", "commit", "copy_bandwidth_tb_s", "read_bandwidth_tb_s", "rows"]
    assert list(record) == fields
    assert record["rows"] == [ROW, ABSENT, INDEX]
    for shown in ("98.8", "97.5-99.2", "1.94", "score 53.0", "35 %", "No module named 'flashinfer'", "socket_append"):
        assert shown in " ".join(done.output.split()), shown


def test_results_survive_a_broken_output_and_an_unwritable_file(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("--json", "/dev/full", "--commit", "c0ffee")
    assert done.exit_code == 1
    assert "'/dev/full' could not be written: No space left on device." in done.output
    assert "98.8" in done.output

    def broken(*_: Any) -> None:
        raise RuntimeError("the table cannot be drawn.")

    monkeypatch.setattr(bench, "_print_result", broken)
    assert run("--json", tmp_path / "out.json", "--commit", "c0ffee").exit_code == 1
    assert json.loads((tmp_path / "out.json").read_text())["rows"] == [ROW, ABSENT, INDEX]


def test_santa_shows_and_writes_what_it_drew(asked: dict[str, Any], tmp_path: Path) -> None:
    done = run("--json", tmp_path / "santa.json", "--commit", "c0ffee", command="santa")
    assert done.exit_code == 0, done.output
    assert asked == {"capture": None, "commit": "c0ffee"}
    assert json.loads((tmp_path / "santa.json").read_text())["rows"] == [SANTA]
    for shown in ("measuring a case", "S=128 phase_carried, capture", "repeated", "score 94.0, draw 11.5", "1.94"):
        assert shown in " ".join(done.output.split()), shown


def test_santa_takes_a_capture_or_says_what_is_wrong_with_it(asked: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "capture.npz"
    arrays = {"q": np.ones((2, 6, 3, 64)), "k": np.ones((2, 2, 9, 64)), "v": np.ones((2, 2, 9, 64))}
    np.savez(path, **arrays, positions=np.arange(3))
    assert run("--capture", path, "--commit", "c0ffee", command="santa").exit_code == 0
    assert asked["capture"].q.shape == (2, 6, 3, 64)
    np.savez(path, **arrays)
    done = run("--capture", path, "--commit", "c0ffee", command="santa")
    assert done.exit_code == 1
    assert done.output.startswith("Error: capture.npz has no positions: it must hold")


@pytest.mark.parametrize("command", ["decode", "santa"])
def test_an_interrupt_leaves_one_line_and_no_file(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(decode, "bench_decode", interrupt)
    monkeypatch.setattr(santa, "bench_santa", interrupt)
    done = run("--json", tmp_path / "out.json", "--commit", "c0ffee", command=command)
    assert done.exit_code == 130
    assert done.output == "Interrupted: no results were kept.\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["decode", "santa"])
def test_a_failed_gate_shows_no_speed(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def fail(*_: Any) -> None:
        raise GateError("the gate failed at a case, so no speed is shown: the selection is wrong.")

    monkeypatch.setattr(decode, "bench_decode", fail)
    monkeypatch.setattr(santa, "bench_santa", fail)
    done = run("--json", tmp_path / "decode.json", "--commit", "c0ffee", command=command)
    assert done.exit_code == 1
    assert done.output == "Error: the gate failed at a case, so no speed is shown: the selection is wrong.\n"
    assert not re.search(r"\d", done.output)
    assert not (tmp_path / "decode.json").exists()


@pytest.mark.parametrize("command", ["decode", "santa"])
def test_the_commit_is_the_source_trees_or_asked_for(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(bench, "source_commit", lambda: "f00d")
    run(command=command)
    assert asked["commit"] == "f00d"
    asked.clear()
    monkeypatch.setattr(bench, "source_commit", lambda: None)
    done = run(command=command)
    assert done.exit_code == 2
    assert "pass --commit HASH" in done.output
    assert not asked
