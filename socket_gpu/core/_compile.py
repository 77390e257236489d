"""Kernel sources, whose templates CuPy compiles once a process with NVRTC, and caches on disk."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

OPTIONS = ("--std=c++20",)
_INCLUDE = re.compile(r'^#include "([\w/]+\.cuh)"\n', re.MULTILINE)


def kernel_source(file: str) -> str:
    """The text of a kernel file, named as "core/attend.cu" is, with our headers in the place of includes.

    A header without a folder is one of `core`.
    """
    folder, seen = files("socket_gpu"), set()

    def inlined(path: str) -> str:
        def header(found: re.Match[str]) -> str:
            if found[1] in seen:
                return ""
            seen.add(found[1])
            return inlined(found[1] if "/" in found[1] else f"core/{found[1]}")

        return _INCLUDE.sub(header, (folder / path).read_text().replace("#pragma once\n", ""))

    return inlined(file)


def specialised(name: str, types: tuple[str, ...], config: Mapping[str, Any]) -> str:
    """The C++ name of a kernel template's instance: `attend<__half, AttendConfig{.heads = 4}>`.

    A template takes its element types and then a struct, named as the kernel is, whose fields are the settings.
    """
    if not config:
        return f"{name}<{', '.join(types)}>" if types else name
    struct = "".join(word.title() for word in name.split("_")) + "Config"
    fields = ", ".join(f".{field} = {str(value).lower()}" for field, value in config.items())
    return f"{name}<{', '.join([*types, f'{struct}{{{fields}}}'])}>"


@cache
def _kernel(file: str, name: str, types: tuple[str, ...], config: tuple[tuple[str, Any], ...]) -> Any:
    instance = specialised(name, types, dict(config))
    module = import_module("cupy").RawModule(code=kernel_source(file), options=OPTIONS, name_expressions=(instance,))
    return module.get_function(instance)


def compiled(file: str, name: str, *types: str, **config: Any) -> Any:
    """The kernel `name` of `file` for these element types and settings, in the order of the struct's fields."""
    return _kernel(file, name, types, tuple(config.items()))
