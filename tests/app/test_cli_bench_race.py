"""`bench race` without a GPU: what it refuses, shows and writes, and that a failed gate shows no speed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from socket_gpu import missing_requirement
from socket_gpu.bench.gate import GateError
from socket_gpu.race import bench as race
from socket_gpu.race.cases import GROUP_NAMES
from socket_theory.cli import bench, main

STAGES = {"sums of keys": 1000.0, "read": 4000.0}
ROW = {
    "method": "race",
    "settings": {"causal": True, "backward": False, "dtype": "bfloat16", "num_planes": 4, "num_tables": 4, "beta": 1.0},
    "batch": 1,
    "num_qo_heads": 4,
    "num_kv_heads": 4,
    "kv_len": 1048576,
    "head_dim": 128,
    "nominal_bits": 0,
    "bits_per_token": 0,
    "kept_tokens": None,
    "us": 5000.0,
    "us_quartiles": [4980.0, 5040.0],
    "us_longest": 5100.0,
    "us_mean": 5010.0,
    "ratio_to_best_dense": None,
    "bytes": 6442450944,
    "fraction_of_read_bandwidth": 0.28,
    "stage_us": STAGES,
    "misses": None,
    "runs": 30,
    "peak_bytes": 3 * 2**30,
    "note": None,
    "floor_us": 1500.0,
    "share_of_floor": 0.3,
    "stage_floor_us": {"sums of keys": 460.0, "read": 1000.0},
}
ABSENT = ROW | {
    **dict.fromkeys(["us", "us_quartiles", "us_longest", "us_mean", "fraction_of_read_bandwidth", "stage_us", "runs"]),
    **dict.fromkeys(["peak_bytes", "floor_us", "share_of_floor", "stage_floor_us"]),
    "method": "linear",
    "note": "not run: ModuleNotFoundError: No module named 'fla'",
}
SLOPE = {
    "method": "race",
    "causal": True,
    "backward": False,
    "dtype": "bfloat16",
    "num_qo_heads": 4,
    "num_kv_heads": 4,
    "from": 1048576,
    "to": 8388608,
    "slope": 0.9876,
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A machine with a GPU whose benchmark takes no time; filled with what it was asked for."""
    seen: dict[str, Any] = {}

    def run(groups: Any, commit: str, announce: Any) -> dict[str, Any]:
        announce("a case")
        seen.update(groups=tuple(groups), commit=commit)
        bandwidths = {"copy_bandwidth_tb_s": 4.26, "read_bandwidth_tb_s": 4.62}
        named = {"device": "a GPU", "driver": "1", "versions": {}, "commit": commit}
        return {**named, **bandwidths, "rows": [ROW, ABSENT], "slopes": [SLOPE]}

    monkeypatch.setattr(bench, "missing_requirement", lambda: None)
    monkeypatch.setattr(race, "bench_race", run)
    return seen


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["bench", "race", *map(str, arguments)])


@pytest.mark.skipif(missing_requirement() is None, reason="this machine has a GPU")
def test_without_a_gpu_it_says_what_is_missing() -> None:
    done = run()
    assert done.exit_code == 2
    assert "the benchmark needs a GPU, and" in " ".join(done.output.split())
    assert missing_requirement() in " ".join(done.output.split())
    assert "Traceback" not in done.output


def test_groups_are_chosen_by_name_and_all_are_the_default(asked: dict[str, Any]) -> None:
    assert run("--only", "causal", "--only", "peers", "--commit", "c0ffee").exit_code == 0
    assert asked == {"groups": ("causal", "peers"), "commit": "c0ffee"}
    assert run("--commit", "c0ffee").exit_code == 0
    assert asked["groups"] == GROUP_NAMES
    done = run("--only", "everything")
    assert done.exit_code == 2
    assert "'causal', 'whole', 'variants', 'largest', 'peers', 'cpu'" in done.output


def test_the_table_and_the_json_hold_every_row(asked: dict[str, Any], tmp_path: Path) -> None:
    done = run("--json", tmp_path / "race.json", "--commit", "c0ffee")
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "race.json").read_text())
    assert record["rows"] == [ROW, ABSENT]
    assert record["slopes"] == [SLOPE]
    words = " ".join(done.output.split())
    for shown in (
        "measuring a case",
        "reads 4.62 TB/s, copies 4.26 TB/s",
        "race causal, forward, bfloat16 4/4 1048576 5.00 4.98-5.04 30 3.00 30 %",
        "sums of keys 1.00 (46 %), read 4.00 (25 %)",
        "No module named 'fla'",
        "time grows as tokens^0.99 from 1048576 to 8388608 tokens",
    ):
        assert shown in words, shown


def test_a_failed_gate_shows_no_speed(asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise GateError("the gate failed at a case, so no speed is shown: the value is off.")

    monkeypatch.setattr(race, "bench_race", fail)
    done = run("--json", tmp_path / "race.json", "--commit", "c0ffee")
    assert done.exit_code == 1
    assert done.output == "Error: the gate failed at a case, so no speed is shown: the value is off.\n"
    assert not re.search(r"\d", done.output)
    assert not list(tmp_path.iterdir())
