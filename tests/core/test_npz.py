"""Damaged and foreign npz files: one ValueError with the file's name, whatever byte is wrong, never wrong numbers."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from socket_theory import Cache, Dense, Key, Socket, load_cache, save_cache
from socket_theory.core.npz import read_npz
from socket_theory.evaluate.capture import Capture, load_capture

KEY = Key.from_seed(4)
SMALL = KEY.generator().normal(size=(1, 1, 3, 2))
CAPTURE = {"q": SMALL[:, :, :1], "k": SMALL, "v": SMALL, "positions": np.array([2])}
CACHE = Socket(num_planes=2, num_tables=2, center_keys=True).prepare(SMALL, SMALL, key=KEY)


def stored_parts(tmp_path: Path) -> dict[str, Any]:
    save_cache(CACHE, tmp_path / "good.npz")
    return read_npz(tmp_path / "good.npz")


def same(loaded: Capture | Cache) -> bool:
    if isinstance(loaded, Capture):
        return all(np.array_equal(getattr(loaded, name), array) for name, array in CAPTURE.items())
    pairs = [(loaded.index.arrays[name], array) for name, array in CACHE.index.arrays.items()]
    pairs += [(loaded.index.frozen["center"], CACHE.index.frozen["center"])]
    pairs += [(getattr(loaded, name), getattr(CACHE, name)) for name in ("keys", "values", "kv_range")]
    pairs += [(loaded.sample.weights, CACHE.sample.weights)]
    return loaded.method == CACHE.method and all(np.array_equal(*pair) for pair in pairs)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("load", [load_capture, load_cache])
def test_a_flipped_or_missing_byte_is_refused_by_name_or_changes_nothing(
    load: Callable[[Path], Any], save: Callable[..., None], tmp_path: Path
) -> None:
    path = tmp_path / "file.npz"
    save(path, **(CAPTURE if load is load_capture else stored_parts(tmp_path)))
    whole = path.read_bytes()
    draw = KEY.fold_in("damage").generator()
    damaged = [whole[:length] for length in range(0, len(whole), 23)]
    for place in range(0, len(whole), 3):
        damaged.append(whole[:place] + bytes([whole[place] ^ int(draw.integers(1, 256))]) + whole[place + 1 :])
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        loaded, said = attempt(load, path)
        assert "file.npz" in said if loaded is None else same(loaded)
        refused += loaded is None
    assert refused > len(damaged) / 2


def attempt(load: Callable[[Path], Any], path: Path) -> tuple[Any, str]:
    """What was loaded, or the sentence that refused it; any error but ValueError fails the test."""
    try:
        return load(path), ""
    except ValueError as error:
        return None, str(error)


def npy(array: Any, shape: tuple[int, ...] | None = None) -> bytes:
    """An npy file, which may claim another shape than it has."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": array.dtype.str, "fortran_order": False, "shape": shape or array.shape}
    )
    return file.getvalue() + array.tobytes()


def write_members(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


FOREIGN: dict[str, Callable[[Path], Any]] = {
    "text": lambda path: path.write_text("q, k, v"),
    "npy": lambda path: path.write_bytes(npy(SMALL)),
    "an empty archive": write_members,
    "a member that is text": lambda path: write_members(path, q=b"1, 2, 3"),
    "an archive in the archive": lambda path: write_members(path, q=b"PK\x05\x06" + bytes(18)),
    "a shape beyond memory": lambda path: write_members(path, q=npy(SMALL, (1 << 20, 1 << 20, 1 << 20))),
    "a shape beyond the data": lambda path: write_members(path, q=npy(SMALL, (1, 1, 3, 200))),
    "a shape short of the data": lambda path: write_members(path, q=npy(SMALL, (1, 1, 1, 2))),
    "objects": lambda path: np.savez(path, **CAPTURE | {"q": np.array([{}], dtype=object)}),
    "arrays of another program": lambda path: np.savez(path, header=[1], data=[1, 2]),
}


@pytest.mark.parametrize("load", [load_capture, load_cache])
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_of_another_kind_is_refused_by_name(kind: str, load: Callable[[Path], Any], tmp_path: Path) -> None:
    FOREIGN[kind](tmp_path / "file.npz")
    with pytest.raises(ValueError, match=r"file\.npz"):
        load(tmp_path / "file.npz")


@pytest.mark.parametrize(
    ("offset", "change"), [(6, 1), (8, 99)], ids=["encrypted", "compressed by a method nobody knows"]
)
def test_an_archive_that_cannot_be_unpacked_is_refused_by_name(offset: int, change: int, tmp_path: Path) -> None:
    np.savez(tmp_path / "file.npz", **CAPTURE)
    content = bytearray((tmp_path / "file.npz").read_bytes())
    for start in (0, content.index(b"PK\x01\x02") + 2):
        content[start + offset] = change
    (tmp_path / "file.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.npz is damaged or holds something else than plain arrays"):
        load_capture(tmp_path / "file.npz")


def test_an_array_that_claims_less_than_it_has_is_refused(tmp_path: Path) -> None:
    write_members(tmp_path / "file.npz", q=npy(SMALL, (1, 1, 1, 2)))
    with pytest.raises(ValueError, match=r"file\.npz is damaged .*q\.npy is longer than its array"):
        read_npz(tmp_path / "file.npz")


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    for load in (load_capture, load_cache):
        with pytest.raises(FileNotFoundError, match=r"file\.npz"):
            load(tmp_path / "file.npz")


HEADERS: dict[str, Any] = {
    "a list": [1],
    "a number": 3,
    "no format": {"method": "Dense"},
    "another format": {"format": 1},
    "another method": {"method": "Dense"},
    "an unhashable method": {"method": []},
    "unknown settings": {"settings": {"colour": 3}},
    "settings of another index": {"settings": {"num_planes": 3, "num_tables": 2, "center_keys": True}},
    "no centring": {"settings": {"num_planes": 2, "num_tables": 2}},
    "another batch shape": {"batch_shape": [2]},
    "a batch shape of text": {"batch_shape": "ab"},
    "another shape": {"shape": [1, 1, 4, 2]},
    "a shape of text": {"shape": "abcd"},
    "another length of values": {"value_dim": 3},
    "a GPU's arrays": {"array_type": "cupy"},
    "too small a capacity": {"capacity": 1},
    "bits of nothing": {"bfloat16": ["shadow"]},
    "bits of all": {"bfloat16": ["keys"]},
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_does_not_fit_its_arrays_is_refused_by_name(case: str, tmp_path: Path) -> None:
    parts = stored_parts(tmp_path)
    header = HEADERS[case]
    if isinstance(header, dict):
        header = json.loads(str(parts["header"])) | header
        header = {name: header[name] for name in header if case != "no format" or name != "format"}
    np.savez(tmp_path / "file.npz", **parts | {"header": np.array(json.dumps(header))})
    with pytest.raises(ValueError, match=r"file\.npz is not a cache of format 2"):
        load_cache(tmp_path / "file.npz")


ARRAYS: dict[str, Callable[[Any], Any]] = {
    "keys": lambda keys: keys[:, :, :2],
    "values": lambda values: values[0],
    "index.codes": lambda codes: codes.astype(np.int64),
    "kv_range": lambda kv_range: kv_range + 1,
    "sample.weights": lambda weights: weights[:1],
    "frozen.center": lambda center: center[..., :1],
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("missing", [False, True])
def test_an_array_that_does_not_fit_or_is_missing_is_refused_by_name(name: str, missing: bool, tmp_path: Path) -> None:
    parts = stored_parts(tmp_path)
    changed = {} if missing else {name: ARRAYS[name](parts[name])}
    np.savez(tmp_path / "file.npz", **{n: part for n, part in parts.items() if n != name} | changed)
    with pytest.raises(ValueError, match=r"file\.npz is not a cache of format 2"):
        load_cache(tmp_path / "file.npz")


@pytest.mark.parametrize("name", ["keys", "values"])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, np.complex128])
def test_keys_and_values_that_are_no_floats_are_refused_by_name(name: str, dtype: Any, tmp_path: Path) -> None:
    """Of a cache without an index or a center, which would not fit such keys."""
    save_cache(Dense().prepare(SMALL, SMALL), tmp_path / "file.npz")
    parts = read_npz(tmp_path / "file.npz")
    np.savez(tmp_path / "file.npz", **parts | {name: parts[name].astype(dtype)})
    with pytest.raises(ValueError, match=rf"file\.npz is not a cache of format 2 .*{name} has dtype"):
        load_cache(tmp_path / "file.npz")


def test_a_failed_save_leaves_the_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_the_disk(file: Any, **_: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    save_cache(CACHE, tmp_path / "file.npz")
    monkeypatch.setattr(np, "savez", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        save_cache(CACHE, tmp_path / "file.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["file.npz"]
    assert same(load_cache(tmp_path / "file.npz"))


def test_a_path_without_a_suffix_keeps_its_name(tmp_path: Path) -> None:
    save_cache(CACHE, str(tmp_path / "file"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
