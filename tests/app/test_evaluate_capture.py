"""The npz of captured queries, keys and values: what it holds, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from socket_theory.core.rng import Key
from socket_theory.evaluate.capture import Capture, load_capture
from socket_theory.evaluate.prefill import even_positions, read_text


def arrays() -> dict[str, Any]:
    draw = Key.from_seed(1).generator()
    return {
        "q": draw.normal(size=(2, 4, 3, 8)).astype(np.float32),
        "k": draw.normal(size=(2, 2, 20, 8)).astype(np.float16),
        "v": draw.normal(size=(2, 2, 20, 8)).astype(np.float16),
        "positions": np.array([9, 14, 19]),
    }


def test_a_capture_survives_its_file(tmp_path: Path) -> None:
    Capture(**arrays()).save(tmp_path / "folder" / "qkv.npz")
    loaded = load_capture(tmp_path / "folder" / "qkv.npz")
    for name, array in arrays().items():
        np.testing.assert_array_equal(getattr(loaded, name), array)
        assert getattr(loaded, name).dtype == array.dtype


def with_nan(array: Any) -> Any:
    array.flat[5] = np.nan
    return array


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "q of another rank": ({"q": lambda q: q[0]}, ValueError, "q has shape (4, 3, 8): pass a non-empty array"),
    "no positions": ({"positions": lambda p: p[:0]}, ValueError, "positions has shape (0,)"),
    "k and v differ": ({"v": lambda v: v[:, :, :7]}, ValueError, "k has shape (2, 2, 20, 8) and v (2, 2, 7, 8)"),
    "q of fewer layers": ({"q": lambda q: q[:1]}, ValueError, "with the layers and D of k"),
    "another head_dim": ({"q": lambda q: q[..., :4]}, ValueError, "with the layers and D of k"),
    "more positions than queries": ({"positions": lambda p: np.arange(5)}, ValueError, "one position a query"),
    "head ratio": ({"q": lambda q: q[:, :3]}, ValueError, "pass a positive multiple of 2 query heads"),
    "integer keys": ({"k": lambda k: k.astype(np.int32)}, ValueError, "qkv.npz is no capture: k has dtype int32"),
    "NaN": ({"v": with_nan}, ValueError, "v contains NaN or infinity"),
    "float positions": ({"positions": lambda p: p * 1.0}, ValueError, "positions has dtype float64: pass integers"),
    "positions in seconds": ({"positions": lambda p: p.astype("m8[s]")}, ValueError, "positions has dtype timedelta64"),
    "position beyond": (
        {"positions": lambda p: p + 1},
        ValueError,
        "positions are [10, 15, 20]: pass indices in [0, 20)",
    ),
    "layers that do not rise": (
        {"layers": lambda _: np.array([3, 1])},
        ValueError,
        "layers are [3, 1] for q of 2 layers",
    ),
    "too few layers": ({"layers": lambda _: np.array([3])}, ValueError, "pass their numbers in the model, rising"),
    "layers of text": ({"layers": lambda _: np.array(["1", "3"])}, ValueError, "layers has dtype <U1: pass integers"),
    "negative position": ({"positions": lambda p: p - 10}, ValueError, "pass indices in [0, 20)"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_array_is_refused_with_its_name(case: str, tmp_path: Path) -> None:
    changes, error, sentence = BAD[case]
    given = arrays()
    for name, change in changes.items():
        given[name] = change(given.get(name))
    np.savez(tmp_path / "qkv.npz", **given)
    with pytest.raises(error, match=re.escape(sentence)):
        load_capture(tmp_path / "qkv.npz")


def test_missing_arrays_are_listed(tmp_path: Path) -> None:
    np.savez(tmp_path / "qkv.npz", q=arrays()["q"], k=arrays()["k"])
    with pytest.raises(ValueError, match=r"qkv.npz has no v, positions: it must hold q \[layers, Hq, T, D\]"):
        load_capture(tmp_path / "qkv.npz")


@pytest.mark.parametrize("kind", ["text", "npy", "objects"])
def test_another_kind_of_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "qkv.npz"
    if kind == "text":
        path.write_text("q, k, v")
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, arrays()["q"])
    else:
        np.savez(path, **arrays() | {"q": np.array([{}], dtype=object)})
    with pytest.raises(
        ValueError, match=r"qkv.npz (is not an npz file|is damaged or holds something else than plain arrays)"
    ):
        load_capture(path)


@pytest.mark.parametrize(("context", "count"), [(8192, 8), (16, 8), (17, 8), (1000, 7), (2, 1)])
def test_positions_step_evenly_through_the_second_half_to_the_last_token(context: int, count: int) -> None:
    positions = even_positions(context, count)
    steps = np.diff(positions)
    assert len(positions) == count
    assert positions[-1] == context - 1
    assert positions[0] >= context // 2
    assert (steps > 0).all()
    assert np.ptp(steps) <= 1 if count > 1 else not len(steps)


def test_too_short_a_context_names_the_least() -> None:
    with pytest.raises(ValueError, match="context=15 was given for 8 positions: pass a context of at least 16"):
        even_positions(15, 8)


def test_layers_are_numbered_from_zero_where_a_file_has_no_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "old.npz", **arrays())
    assert load_capture(tmp_path / "old.npz").layers.tolist() == [0, 1]
    Capture(**arrays(), layers=np.array([1, 3])).save(tmp_path / "new.npz")
    assert load_capture(tmp_path / "new.npz").layers.tolist() == [1, 3]


def test_a_text_that_is_not_utf8_is_named_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_bytes("naïve".encode("latin-1"))
    with pytest.raises(ValueError, match=r"words\.txt is no UTF-8 text \(byte 0xef at offset 2\): convert it to UTF-8"):
        read_text(tmp_path / "words.txt")
