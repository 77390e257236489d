"""Capturing a text with a model: which positions, what is cached and when the model is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from socket_theory.cli.evaluate import evaluate_group
from socket_theory.core.selection import Budget
from socket_theory.evaluate.accuracy import evaluate_attention
from socket_theory.evaluate.capture import load_capture
from socket_theory.evaluate.prefill import capture_text
from socket_theory.evaluate.weights import CACHE_VARIABLE

pytestmark = pytest.mark.llm

TEXT = " ".join(f"w{3 + 7 * i % 61}" for i in range(90))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def files(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


def test_only_the_queries_at_the_positions_are_kept(llm: SimpleNamespace, checkpoint: Path) -> None:
    capture = capture_text(checkpoint, TEXT, context=80, count=4)
    assert capture.positions.tolist() == [49, 59, 69, 79]
    assert capture.q.shape == (3, 4, 4, 8)
    assert capture.k.shape == capture.v.shape == (3, 2, 80, 8)
    assert [str(array.dtype) for array in (capture.q, capture.k, capture.v)] == ["float32", "float16", "float16"]
    ids = llm.hugging_face.encode(checkpoint, TEXT)[:80]

    def compare(layer: int, query: Any, key: Any, value: Any) -> None:
        np.testing.assert_array_equal(capture.q[layer], query[:, [49, 59, 69, 79]])
        np.testing.assert_array_equal(capture.k[layer], key.astype(np.float16))
        np.testing.assert_array_equal(capture.v[layer], value.astype(np.float16))

    llm.hugging_face.observe_attention(llm.hugging_face.load_model(checkpoint), ids, compare)


def test_the_same_question_is_answered_from_the_cache(
    llm: SimpleNamespace, checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = capture_text(checkpoint, TEXT, context=80, count=4)
    (stored,) = files(cache)
    np.testing.assert_array_equal(load_capture(stored).q, first.q)

    def refuse(*_: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(llm.hugging_face, "load_model", refuse)
    again = capture_text(checkpoint, TEXT + " w5", context=80, count=4)
    np.testing.assert_array_equal(again.q, first.q)
    for text, context, count in [("w5 " + TEXT, 80, 4), (TEXT, 79, 4), (TEXT, 80, 5)]:
        with pytest.raises(AssertionError, match="the model was loaded"):
            capture_text(checkpoint, text, context=context, count=count)


def test_other_weights_are_another_entry(
    llm: SimpleNamespace, checkpoint: Path, cache: Path, make_model: Callable[..., Any]
) -> None:
    first = capture_text(checkpoint, TEXT, context=80, count=4)
    make_model("Llama", rope_theta=77.0).save_pretrained(checkpoint)
    second = capture_text(checkpoint, TEXT, context=80, count=4)
    assert len(files(cache)) == 2
    assert np.abs(first.k.astype(float) - second.k).max() > 1e-3


def test_an_interrupted_prefill_leaves_no_file(llm: SimpleNamespace, checkpoint: Path, cache: Path) -> None:
    layers = iter([None, None])

    def interrupt() -> None:
        if next(layers, "end") == "end":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture_text(checkpoint, TEXT, context=80, count=4, on_layer=interrupt)
    assert files(cache) == []


def test_a_short_text_is_refused(llm: SimpleNamespace, checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="the text has 90 tokens and context=91: pass a longer text or a shorter"):
        capture_text(checkpoint, TEXT, context=91, count=4)


def test_the_command_runs_a_checkpoint_end_to_end(llm: SimpleNamespace, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    options = ["--text", tmp_path / "text.txt", "--context", 80, "--sink", 1, "--window", 2]
    arguments = ["attention", "--model", checkpoint, *options, "--density", 0.2, "--json", tmp_path / "out.json"]
    done = CliRunner().invoke(evaluate_group, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["model"] == "checkpoint"
    assert record["context"] == 80
    assert record["positions"] == [44, 49, 54, 59, 64, 69, 74, 79]
    assert len(record["text_sha256"]) == 64
    rows = {row["method"]: row for row in record["rows"]}
    assert rows["dense"]["relative_error_p90"] < 1e-12
    assert rows["oracle_top_k"]["captured_mass"] > rows["random"]["captured_mass"]


def test_layers_the_checkpoint_lacks_are_refused_before_anything_is_read(
    llm: SimpleNamespace, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the text or the weights were read")

    for name in ("encode", "load_model"):
        monkeypatch.setattr(llm.hugging_face, name, refuse)
    done = CliRunner().invoke(evaluate_group, ["attention", "--model", str(checkpoint), "--layers", "0,3"])
    assert done.exit_code == 2
    assert done.output.endswith("Error: --layers 0,3 were given: pass some of 0 to 2.\n")


def test_a_damaged_capture_is_made_anew(llm: SimpleNamespace, checkpoint: Path, cache: Path) -> None:
    first = capture_text(checkpoint, TEXT, context=80, count=4)
    (stored,) = files(cache)
    stored.write_bytes(stored.read_bytes()[:-40])
    with pytest.warns(UserWarning, match=rf"the capture is made anew, the one kept cannot be read \({stored.name}"):
        again = capture_text(checkpoint, TEXT, context=80, count=4)
    np.testing.assert_array_equal(again.q, first.q)
    np.testing.assert_array_equal(load_capture(stored).q, first.q)


def test_a_cache_that_cannot_be_written_does_not_lose_the_capture(
    llm: SimpleNamespace, checkpoint: Path, cache: Path
) -> None:
    cache.mkdir()
    (cache / "captures").write_text("a file in the folder's place")
    with pytest.warns(UserWarning, match="the capture is used but not kept, it cannot be written"):
        capture = capture_text(checkpoint, TEXT, context=80, count=4)
    assert capture.q.shape == (3, 4, 4, 8)


@pytest.fixture
def hybrid(checkpoint: Path, make_model: Callable[..., Any]) -> Path:
    """The checkpoint with attention in layers 1 and 3 of four alone."""
    kinds = ["conv", "full_attention", "conv", "full_attention"]
    make_model("Lfm2", num_hidden_layers=4, layer_types=kinds).save_pretrained(checkpoint)
    return checkpoint


def test_a_hybrid_model_keeps_its_layer_numbers(llm: SimpleNamespace, hybrid: Path, cache: Path) -> None:
    capture = capture_text(hybrid, TEXT, context=80, count=4)
    assert capture.layers.tolist() == [1, 3]
    (stored,) = files(cache)
    assert load_capture(stored).layers.tolist() == [1, 3]
    rows = [evaluate_attention(capture, Budget(tokens=20), layers=layers) for layers in ([1], [3], [1, 3])]
    alone = replace(capture, q=capture.q[1:], k=capture.k[1:], v=capture.v[1:], layers=np.array([3]))
    assert evaluate_attention(alone, Budget(tokens=20)) == rows[1]
    assert rows[0] != rows[1]


def test_a_layer_without_attention_is_refused_before_the_prefill(
    llm: SimpleNamespace, hybrid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm.hugging_face, "load_model", None)
    done = CliRunner().invoke(evaluate_group, ["attention", "--model", str(hybrid), "--layers", "0,1"])
    assert done.exit_code == 2
    assert done.output.endswith("Error: --layers 0,1 were given: pass some of 1, 3, which have attention.\n")


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"GGUF" + bytes(64)])
def test_a_model_file_that_cannot_be_read_is_named(
    llm: SimpleNamespace, checkpoint: Path, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(ValueError, match=r"checkpoint cannot be read as a language model \(.*cut short or altered"):
        capture_text(checkpoint, TEXT, context=80, count=4)
    (tmp_path / "model.gguf").write_bytes(damage(b"GGUF" + bytes(range(200))))
    for read in (llm.hugging_face.attention_layers, llm.hugging_face.load_model):
        with pytest.raises(ValueError, match=r"model\.gguf cannot be read as a language model"):
            read(tmp_path / "model.gguf")


def test_weights_that_are_no_numbers_are_named(
    llm: SimpleNamespace, checkpoint: Path, make_model: Callable[..., Any]
) -> None:
    model = make_model("Llama")
    with llm.torch.no_grad():
        model.model.layers[1].self_attn.k_proj.weight[0, 0] = float("nan")
    model.save_pretrained(checkpoint)
    with pytest.raises(ValueError, match="the keys of layer 1 contain NaN or infinity: checkpoint is altered"):
        capture_text(checkpoint, TEXT, context=80, count=4)
