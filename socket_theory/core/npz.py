"""Reading npz files that anybody may have written, cut short or altered."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_npz(path: str | Path) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file by name, each read to its end, so that its checksum is compared.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        With the file's name, if it is no npz, is damaged, or holds something else than plain arrays.
    """
    path = Path(path)
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path.name} is not an npz file: write it with numpy.savez.")
        # A damaged archive can fail in any layer below (zip, zlib, NumPy's header parser), each with its own errors.
        try:
            with zipfile.ZipFile(file) as archive:
                return {name.removesuffix(".npy"): _read_array(archive, name) for name in archive.namelist()}
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise ValueError(
                f"{path.name} is damaged or holds something else than plain arrays ({reason}): write it anew."
            ) from error


def _read_array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(name) as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        # zipfile compares the checksum at the end of a member, and NumPy stops at the array's.
        if member.read(1):
            raise ValueError(f"{name} is longer than its array")
    return np.asarray(array)
