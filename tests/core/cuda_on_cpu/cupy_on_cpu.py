"""A module to stand in for CuPy: arrays are NumPy's, and kernels are built from their CUDA sources by a C++ compiler.

What the launchers ask of CuPy, and no more. New memory is full of ones, NaN or an integer that
no kernel writes, so that what is not written shows.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np

FOLDER = Path(__file__).parent
COMPILER = shutil.which("g++") or shutil.which("clang++")
UNWRITTEN = -(2**30)
INSTALL = "no C++ compiler is installed: install g++ or clang++."
FLAGS = ["-std=c++20", "-O1", "-w", "-shared", "-fPIC", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE"]
ATTRIBUTES = {
    "MaxSharedMemoryPerBlockOptin": 227 * 1024,
    "MultiProcessorCount": 6,
}
RUN = """
extern "C" const char* run(int x, int y, int threads, int shared_bytes, void** arguments) {
    return launch_with(KERNEL, x, y, threads, shared_bytes, arguments);
}
"""


class Array(np.ndarray[Any, Any]):
    """A NumPy array that calls itself CuPy's."""

    __module__ = "cupy"
    device = SimpleNamespace(id=0)

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)

    def set(self, array: Any, stream: Any) -> None:
        self[...] = array

    def setflags(self, **flags: Any) -> None:
        """Nothing: a cache is read-only on the host, and grows in place on a GPU."""


def cpp_source(source: str) -> str:
    """CUDA C++ with its dynamic shared memory named and its inline assembly as calls of `ptx`."""
    shared = r"extern __shared__ (?:__align__\(16\) )?(\w+) (\w+)\[\];"
    source = re.sub(shared, r"\1* const \2 = reinterpret_cast<\1*>(dynamic_shared);", source)
    statement = r'asm(?: volatile)?\(((?:\s*"[^"]*")+)(.*?)\);'

    def call(found: re.Match[str]) -> str:
        operands = re.sub(r'[\s:,]*"[+=]?[rfln]"\s*\(', ", (", found[2])
        return f"ptx({found[1]}{operands});"

    return re.sub(statement, call, source, flags=re.DOTALL)


@cache
def built(code: str, name: str) -> Any:
    """The function that launches a kernel, and says what went wrong or nothing."""
    assert COMPILER is not None, INSTALL
    folder = Path(mkdtemp(prefix="kernel-"))
    try:
        (folder / "kernel.cpp").write_text(f'#include "cuda.h"\n{cpp_source(code)}\n{RUN.replace("KERNEL", name)}')
        command = [COMPILER, *FLAGS, f"-I{FOLDER}", "kernel.cpp", "-o", "kernel.so"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:4000]
        function = ctypes.CDLL(str(folder / "kernel.so")).run
    finally:
        shutil.rmtree(folder)
    function.restype = ctypes.c_char_p
    return function


class Kernel:
    """A kernel of a module."""

    shared_size_bytes = max_dynamic_shared_size_bytes = 0

    def __init__(self, code: str, name: str) -> None:
        self.program = code, name

    def __call__(self, grid: Any, block: Any, arguments: Any, *, shared_mem: int = 0) -> None:
        held = [np.array(a) for a in arguments]
        pointers = (ctypes.c_void_p * len(held))(*(a.ctypes.data for a in held))
        sizes = (grid[0], grid[1] if len(grid) > 1 else 1, block[0], shared_mem)
        if Stream.recorded is not None:
            Stream.recorded.append(lambda: self._launch(sizes, pointers, (held, arguments)))
        else:
            self._launch(sizes, pointers, (held, arguments))

    def _launch(self, sizes: tuple[int, ...], pointers: Any, kept_alive: Any) -> None:
        wrong = built(*self.program)(*map(ctypes.c_int, sizes), pointers)
        assert wrong is None, f"the kernel {self.program[1]} {wrong.decode()}."


class RawModule:
    """The kernels of a source."""

    def __init__(self, *, code: str, options: tuple[str, ...], name_expressions: tuple[str, ...]) -> None:
        self.code = code

    def get_function(self, name: str) -> Kernel:
        return Kernel(self.code, name)


class Graph:
    """Launches to be made again."""

    def __init__(self, launches: list[Callable[[], None]]) -> None:
        self.launches = launches

    def launch(self, stream: Any) -> None:
        for call in self.launches:
            call()


class Stream:
    """Runs what is launched at once, or records it."""

    recorded: ClassVar[list[Callable[[], None]] | None] = None

    def __init__(self, **options: Any) -> None:
        pass

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        Stream.recorded = None

    def synchronize(self) -> None:
        assert Stream.recorded is None, "a stream is waited for while it is captured."

    def is_capturing(self) -> bool:
        return Stream.recorded is not None

    def begin_capture(self) -> None:
        Stream.recorded = []

    def end_capture(self) -> Graph:
        graph, Stream.recorded = Graph(Stream.recorded or []), None
        return graph


class CupyOnCpu(ModuleType):
    """NumPy's functions, with arrays of this module for results."""

    ndarray, RawModule = Array, RawModule
    cuda = SimpleNamespace(
        get_current_stream=Stream,
        Stream=Stream,
        runtime=SimpleNamespace(getDevice=lambda: 0),
        Device=lambda number=0: SimpleNamespace(
            attributes=ATTRIBUTES, compute_capability="90", synchronize=lambda: None
        ),
    )

    @staticmethod
    def asnumpy(array: Any) -> Any:
        return np.array(array)

    @staticmethod
    def asarray(array: Any, dtype: Any = None) -> Any:
        mine = isinstance(array, Array) and dtype in (None, array.dtype)
        return array if mine else np.array(array, dtype=dtype).view(Array)

    @staticmethod
    def empty(shape: Any, dtype: Any = np.float64) -> Any:
        made = np.empty(shape, dtype)
        if made.dtype.kind == "i":
            made.fill(UNWRITTEN)
        else:
            made.reshape(-1).view(np.uint8).fill(255)
        return made.view(Array)

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        if isinstance(found, type) or not callable(found):
            return found

        def called(*arguments: Any, **options: Any) -> Any:
            with np.errstate(all="ignore"):
                result = found(*arguments, **options)
            return result.view(Array) if isinstance(result, np.ndarray) else result

        return called
