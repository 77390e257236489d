"""The order of the methods on SmolLM2-135M, where its weights have been fetched."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from socket_theory.cli.evaluate import evaluate_group
from socket_theory.evaluate.weights import MissingWeightsError, find_weights
from socket_theory.socket_lsh.estimator import Socket

pytestmark = [pytest.mark.llm, pytest.mark.slow]


@pytest.fixture(scope="module")
def weights(llm: SimpleNamespace) -> Path:
    try:
        return find_weights("smollm2")
    except MissingWeightsError as missing:
        pytest.skip(str(missing))


def test_no_special_token_and_no_network(llm: SimpleNamespace, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a network connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert not {0, 1, 2} & set(llm.hugging_face.encode(weights, "The cat sat."))
    assert llm.hugging_face.attention_layers(weights) == list(range(30))
    assert llm.hugging_face.load_model(weights).config.num_hidden_layers == 30


@pytest.fixture(scope="module")
def record(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Four layers over 2048 tokens."""
    output = tmp_path_factory.mktemp("run") / "out.json"
    options = ["--context", "2048", "--layers", "8,15,22,29", "--sink", "4", "--window", "16"]
    done = CliRunner().invoke(evaluate_group, ["attention", *options, "--json", str(output)])
    assert done.exit_code == 0, done.output
    run: dict[str, Any] = json.loads(output.read_text())
    return run


def test_socket_stands_between_the_oracle_and_hard_lsh(record: dict[str, Any]) -> None:
    rows = record["rows"]
    plain, released = (
        next(r["relative_error_mean"] for r in rows if r["method"] == "socket" and Socket(**r["settings"]) == method)
        for method in (Socket(), Socket.as_released())
    )
    others = {row["method"]: row["relative_error_mean"] for row in rows if row["method"] != "socket"}
    assert others["dense"] < 1e-12
    assert others["oracle_top_k"] < plain < others["hard_lsh"] < others["window"] < others["random"]
    assert plain < released


def test_strata_and_one_phase_gain_more_from_draws_than_independence_allows(record: dict[str, Any]) -> None:
    iid, stratified, systematic = record["variance_curves"]
    assert iid["slope"] == pytest.approx(-1)
    assert -1.6 < systematic["slope"] < stratified["slope"] < -1.2
    assert systematic["slope_p90"] < -1
    errors = {
        row["settings"]["sampler"]: row["relative_error_mean"]
        for row in record["sampled_rows"]
        if row["method"] == "santa" and row["settings"]["num_samples"] == 128
    }
    assert errors["phase_carried"] < min(errors["iid"], errors["flash"])
