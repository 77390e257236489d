"""Where a result came from: the commit of this source tree and the versions it ran with."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import socket_theory

LIBRARIES = ("numpy", "scipy", "torch", "transformers", "gguf")


def source_commit() -> str | None:
    """The commit checked out where this package's source is tracked by git; None for an installed copy."""
    folder = Path(socket_theory.__file__).parent
    # A virtual environment may lie inside a repository that is not ours, so the file itself must be tracked.
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git(folder, "rev-parse", "HEAD")


def versions() -> dict[str, str]:
    """Python's version, ours, and those of the libraries a result depends on, as far as they are installed."""
    found = {"python": platform.python_version(), "socket_theory": socket_theory.__version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
