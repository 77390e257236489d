"""The text that a language model learns from, and the text that it is judged on: what every Python brings along."""

from __future__ import annotations

import hashlib
import platform
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
"""The characters that are told apart; all others are one more."""
HELD_OUT = 10
"""One document of so many is held out."""
_COPY = 40
"""Characters from which on a paragraph that stands on both sides is a copy."""
_LEFT_OUT = {"encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tests", "turtledemo"}


@dataclass(frozen=True)
class Corpus:
    """Training and validation text. `held_out` are the documents of the second, `python` whose they are."""

    training: str
    validation: str
    held_out: tuple[str, ...]
    python: str

    def record(self) -> dict[str, object]:
        """What a result says of its text."""
        return {
            "python": self.python,
            "training_characters": len(self.training),
            "training_sha256": _sha256(self.training),
            "validation_characters": len(self.validation),
            "validation_sha256": _sha256(self.validation),
            "held_out": list(self.held_out),
        }


def standard_library() -> Corpus:
    """Python's help texts and the source of its standard library, one topic or top-level module in ten held out."""
    return split(dict(_documents()), platform.python_version())


def split(documents: Mapping[str, str], python: str) -> Corpus:
    """The documents in the order of their names, those held out apart.

    The hash of its name decides whether a document is held out, so no other document matters to that. A paragraph of
    40 characters or more that is held out is taken out of the training text wherever it has a copy, spaces aside.

    Raises
    ------
    ValueError
        If no document is held out, or all are.
    """
    held_out = tuple(name for name in sorted(documents) if int(_sha256(name), 16) % HELD_OUT == 0)
    rest = [documents[name] for name in sorted(documents) if name not in held_out]
    if not held_out or not rest:
        raise ValueError(f"{len(held_out)} of {len(documents)} documents are held out: pass more documents.")
    validation = "\n\n".join(documents[name] for name in held_out)
    known = set(map(_words, validation.split("\n\n")))
    kept = [
        part for text in rest for part in text.split("\n\n") if len(_words(part)) < _COPY or _words(part) not in known
    ]
    return Corpus("\n\n".join(kept), validation, held_out, python)


def encode(text: str) -> NDArray[np.uint8]:
    """The place of every character in ALPHABET, and behind its last one for all others."""
    codes = np.full(0x110000, len(ALPHABET), dtype=np.uint8)
    codes[[ord(character) for character in ALPHABET]] = np.arange(len(ALPHABET))
    return np.asarray(codes[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")])


def _documents() -> Iterator[tuple[str, str]]:
    """(name, text) of every help topic and of every top-level module, a package in one piece."""
    from pydoc_data.topics import topics

    yield from ((f"topic {name}", text) for name, text in topics.items())
    modules: dict[str, list[Path]] = {}
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).parts
        name = parts[0].removesuffix(".py")
        if name in sys.stdlib_module_names and not _LEFT_OUT & {*parts, name}:
            modules.setdefault(name, []).append(path)
    for name, paths in modules.items():
        yield f"module {name}", "\n\n".join(path.read_text(encoding="utf-8", errors="replace") for path in paths)


def _words(paragraph: str) -> str:
    return " ".join(paragraph.split())


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
