"""`bench decode` without a GPU: what it refuses, what it writes, and that a failed gate shows no speed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from socket_gpu import missing_requirement
from socket_gpu.bench import decode
from socket_gpu.bench.cases import GROUP_NAMES
from socket_gpu.bench.gate import GateError
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
    **dict.fromkeys(["us", "us_quartiles", "us_longest", "ratio_to_best_dense", "fraction_of_read_bandwidth"]),
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


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A machine with a GPU whose benchmark takes no time; filled with what it was asked for."""
    seen: dict[str, Any] = {}

    def run(groups: Any, commit: str, announce: Any) -> dict[str, Any]:
        announce("a case")
        seen.update(groups=tuple(groups), commit=commit)
        bandwidths = {"copy_bandwidth_tb_s": 2.9, "read_bandwidth_tb_s": 3.0}
        return {
            "device": "a GPU",
            "driver": "1",
            "versions": {},
            "commit": commit,
            **bandwidths,
            "rows": [ROW, ABSENT, INDEX],
        }

    monkeypatch.setattr(bench, "missing_requirement", lambda: None)
    monkeypatch.setattr(decode, "bench_decode", run)
    return seen


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["bench", "decode", *map(str, arguments)])


@pytest.mark.skipif(missing_requirement() is None, reason="this machine has a GPU")
def test_without_a_gpu_it_says_what_is_missing() -> None:
    done = run()
    assert done.exit_code == 2
    assert missing_requirement() in " ".join(done.output.split())
    assert "Traceback" not in done.output


def test_the_command_needs_nothing_of_a_gpu_to_be_listed() -> None:
    done = CliRunner().invoke(main, ["bench", "--help"])
    assert done.exit_code == 0
    assert "decode" in done.output
    assert "cupy" not in sys.modules or missing_requirement() is None


def test_all_groups_are_the_default(asked: dict[str, Any]) -> None:
    assert run("--commit", "c0ffee").exit_code == 0
    assert asked["groups"] == GROUP_NAMES


def test_groups_are_chosen_by_name(asked: dict[str, Any]) -> None:
    assert run("--only", "growth", "--only", "index", "--commit", "c0ffee").exit_code == 0
    assert asked == {"groups": ("growth", "index"), "commit": "c0ffee"}
    done = run("--only", "everything")
    assert done.exit_code == 2
    assert "'main', 'variants', 'growth', 'index'" in done.output


def test_the_table_and_the_json_hold_every_row(asked: dict[str, Any], tmp_path: Path) -> None:
    done = run("--json", tmp_path / "out" / "decode.json", "--commit", "c0ffee")
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "out" / "decode.json").read_text())
    fields = ["device", "driver", "versions", "commit", "copy_bandwidth_tb_s", "read_bandwidth_tb_s", "rows"]
    assert list(record) == fields
    assert record["rows"] == [ROW, ABSENT, INDEX]
    for shown in ("98.8", "97.5-99.2", "1.94", "score 53.0", "35 %", "No module named 'flashinfer'", "socket_append"):
        assert shown in " ".join(done.output.split()), shown


def test_a_failed_gate_shows_no_speed(asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise GateError("the gate failed at a case, so no speed is shown: the selection is wrong.")

    monkeypatch.setattr(decode, "bench_decode", fail)
    done = run("--json", tmp_path / "decode.json", "--commit", "c0ffee")
    assert done.exit_code == 1
    assert done.output == "Error: the gate failed at a case, so no speed is shown: the selection is wrong.\n"
    assert not re.search(r"\d", done.output)
    assert not (tmp_path / "decode.json").exists()


def test_the_commit_is_the_source_trees_or_asked_for(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "source_commit", lambda: "f00d")
    run()
    assert asked["commit"] == "f00d"
    asked.clear()
    monkeypatch.setattr(bench, "source_commit", lambda: None)
    done = run()
    assert done.exit_code == 1
    assert "pass --commit HASH" in done.output
    assert not asked
