"""Kernel sources, specialised by macros and compiled once a process by CuPy with NVRTC (which caches on disk)."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

OPTIONS = ("--std=c++17",)


def kernel_source(file: str) -> str:
    """The text of a kernel file, named as "core/attend.cu" is, with `core/common.cuh` in place of its include."""
    folder = files("socket_gpu")
    common = (folder / "core" / "common.cuh").read_text()
    return (folder / file).read_text().replace('#include "common.cuh"', common)


def macro_options(macros: dict[str, Any]) -> tuple[str, ...]:
    """-D options in a fixed order, so that equal settings compile once."""
    return tuple(f"-D{name}={value}" for name, value in sorted(macros.items()))


@cache
def _module(file: str, options: tuple[str, ...]) -> Any:
    return import_module("cupy").RawModule(code=kernel_source(file), options=OPTIONS + options)


def compiled(file: str, name: str, **macros: Any) -> Any:
    """The kernel `name` of `file` for these macros, as a CuPy function."""
    return _module(file, macro_options(macros)).get_function(name)
