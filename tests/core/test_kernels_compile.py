"""Every kernel compiles for sm_80 and sm_90, and its launches fit there, told without a GPU by NVRTC.

The settings of the kernels come from the launchers themselves: decode steps run on NumPy arrays under CuPy's name, with
recorders in place of compilation and launch.
"""

import ctypes
import os
import pkgutil
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import socket_gpu
from socket_gpu.core._compile import OPTIONS, kernel_source, specialised
from socket_gpu.core._launch import struct
from socket_gpu.race.buckets import HEAD_DIMS, MOST_FEATURES, MOST_PLANES
from socket_gpu.race.plan import RacePlan
from socket_gpu.race.sequences import RaceSequences
from socket_gpu.registry import CupyBackend
from socket_gpu.santa.plan import SantaPlan
from socket_gpu.socket_lsh.plan import DecodePlan
from socket_theory import BorrowedRows, Budget, HardLSH, Key, PagedRows, Race, Santa, Socket
from socket_theory.core.checks import bfloat16
from socket_theory.core.hashing_method import HashingMethod

INSTALL = "pip install nvidia-cuda-nvrtc nvidia-cuda-runtime (or: pip install --group dev)"
KERNELS = Path(socket_gpu.__file__).parent
SHARED_BYTES = {"sm_80": 163 * 1024, "sm_90": 227 * 1024}
ARCHITECTURES = sorted(SHARED_BYTES)

# Method, head_dim, dtype, query heads a KV head, group of the budget; tokens, of which a quarter is kept.
MAIN = [
    (Socket.as_released(), 128, "bfloat16", 1, "query_head"),
    (Socket.as_released(), 128, "bfloat16", 4, "query_head"),
    (Socket.as_released(), 128, "bfloat16", 4, "kv_head"),
]
STEPS = [
    *MAIN,
    (Socket(num_planes=8, num_tables=20, value_weight=True), 128, "float16", 8, "query_head"),
    (Socket(num_planes=16, num_tables=20, temperature=0.05), 64, "bfloat16", 5, "query_head"),
    (Socket(num_planes=1, num_tables=300, query_map="linear"), 64, "float32", 1, "query_head"),
    (Socket(num_planes=11, num_tables=70, center_keys=True), 256, "bfloat16", 2, "kv_head"),
    (Socket(num_planes=3, num_tables=1, query_map="tanh"), 16, "float16", 7, "query_head", 20_000),
    (Socket(num_planes=6, num_tables=7), 256, "float64", 8, "kv_head"),
    (Socket(num_planes=6, num_tables=7), 256, "float32", 8, "kv_head"),
    (HardLSH(), 128, "bfloat16", 4, "query_head"),
    (HardLSH(num_planes=16, num_tables=70), 64, "float32", 3, "kv_head"),
]
SANTA_STEPS = [
    (Santa(), 128, "bfloat16", 4),
    (Santa(), 64, "float16", 8),
    (Santa(sampler="flash"), 128, "float16", 1),
    (Santa(sampler="flash", tile_len=96), 64, "bfloat16", 3),
    (Santa(sampler="flash", tile_len=1024), 64, "bfloat16", 3),
]
# Method, head_dim, dtype of keys and of values, query heads a KV head: no features that need more shared memory.
RACE_STEPS = [
    (Race(), 128, "bfloat16", "bfloat16", 4),
    (Race(1, 2048), 64, "float16", "float32", 7),
    (Race(12, 1), 256, "float32", "float16", 1),
    (Race(3, 5), 16, "float64", "float64", 1),
]
# Planes and tables, head_dim, dtype, causal, query heads a KV head: one group of features or more, every element.
RACE_SEQUENCES = [
    (4, 4, 128, "bfloat16", True, 4),
    (4, 4, 128, "bfloat16", False, 1),
    (8, 1, 64, "bfloat16", True, 2),
    (5, 5, 128, "float16", False, 1),
    (2, 3, 64, "float32", True, 1),
    (4, 3, 64, "bfloat16", True, 1),
]
PAGES = (0, 16)
# Launched, not compiled: many tables and the largest group, for every number of planes.
LARGEST = [
    (method(num_planes=planes, num_tables=300), 16, "bfloat16", 8, group)
    for method in (Socket, partial(Socket, query_map="tanh"), HardLSH)
    for planes in range(1, 17)
    for group in ("query_head", "kv_head")
]


@dataclass(frozen=True)
class Program:
    """One NVRTC program: an instance of a kernel of a file."""

    file: str
    instance: str

    @property
    def name(self) -> str:
        return self.instance.split("<")[0]


@dataclass(frozen=True)
class Launch:
    """A kernel with the layout of its parameters and the dynamic shared memory that a launcher asked for."""

    program: Program
    params: Any
    shared_bytes: int


def launches_of(
    cupy_on_cpu: ModuleType,
    steps: list[tuple[Any, ...]],
    arch: str,
    santa_steps: Sequence[tuple[Any, ...]] = (),
    pages: Sequence[int] = (),
    race_steps: Sequence[tuple[Any, ...]] = (),
    race_sequences: Sequence[tuple[Any, ...]] = (),
) -> set[Launch]:
    """What these decode steps, planned and eager, with an append, and these whole sequences compile and launch."""
    seen = set()

    def compiled(file: str, name: str, *types: str, **config: Any) -> Program:
        return Program(file, specialised(name, types, config))

    def launch(kernel: Program, grid: Any, block: int, shared_bytes: int = 0, /, **params: Any) -> None:
        seen.add(Launch(kernel, struct(**params).dtype, shared_bytes))

    def shared_memory_limit() -> int:
        return SHARED_BYTES[arch]

    def multiprocessors() -> int:
        return 108

    fakes = (compiled, launch, shared_memory_limit, multiprocessors)
    with pytest.MonkeyPatch.context() as patch:
        cupy = cupy_on_cpu.CupyOnCpu("cupy")
        cupy.empty = cupy.zeros
        patch.setitem(sys.modules, "cupy", cupy)
        patch.setattr("socket_gpu.core.backend.missing_requirement", lambda: None)
        for found in pkgutil.walk_packages(socket_gpu.__path__, "socket_gpu."):
            for fake in fakes:
                if hasattr(import_module(found.name), fake.__name__):
                    patch.setattr(f"{found.name}.{fake.__name__}", fake)
        with np.errstate(all="ignore"):
            for step in steps:
                take(*step)
            for step in santa_steps:
                take_santa(*step)
            for step in race_steps:
                take_race(*step)
            for sequences in race_sequences:
                take_sequences(*sequences)
            for page in pages:
                take_owned(page)
    return seen


def ones(tokens: int, head_dim: int, dtype: str, group: int) -> tuple[Any, Any]:
    """Keys [1, 2, N, D] and a query [1, 2 * group, D]."""
    element, cupy = bfloat16() if dtype == "bfloat16" else np.dtype(dtype), import_module("cupy")
    return cupy.ones((1, 2, tokens, head_dim), element), cupy.ones((1, 2 * group, head_dim), element)


def take(method: HashingMethod, head_dim: int, dtype: str, group: int, share: str, tokens: int = 33) -> None:
    keys, query = ones(tokens, head_dim, dtype, group)
    cache = method.prepare(keys, keys, key=Key.from_seed(1), backend=CupyBackend(), capacity=tokens + 1)
    budget = Budget(fraction=0.25, sink=1, window=2, per=share)
    plan = DecodePlan(cache, num_qo_heads=2 * group, budget=budget)
    plan.run(query)
    plan.append(keys[:, :, :1].copy(), keys[:, :, :1].copy())
    method.attend(query, cache, budget=budget)


def take_santa(method: Santa, head_dim: int, dtype: str, group: int) -> None:
    keys, query = ones(33, head_dim, dtype, group)
    cache = method.prepare(keys, keys, backend=CupyBackend(), capacity=34)
    plan = SantaPlan(cache, num_qo_heads=2 * group, key=Key.from_seed(1))
    plan.run(query)
    plan.append(keys[:, :, :1].copy(), keys[:, :, :1].copy())


def take_race(method: Race, head_dim: int, dtype: str, value_dtype: str, group: int) -> None:
    (keys, query), (values, _) = (ones(33, head_dim, name, group) for name in (dtype, value_dtype))
    cache = method.prepare(keys, values, key=Key.from_seed(1), backend=CupyBackend(), capacity=66)
    plan = RacePlan(cache, num_qo_heads=2 * group)
    plan.run(query)
    for tokens in (1, 32):
        plan.append(keys[:, :, :tokens].copy(), values[:, :, :tokens].copy())


def take_sequences(planes: int, tables: int, head_dim: int, dtype: str, causal: bool, group: int) -> None:
    cupy = import_module("cupy")
    keys, query = ones(130, head_dim, dtype, group)
    query = query[:, :, None].repeat(130, axis=2)
    weights = cupy.ones((tables, planes, head_dim), np.float32)
    passes = RaceSequences(query, keys, keys, weights, cupy.ones((), np.float32), causal)
    passes.forward()
    passes.backward(query)


def take_owned(page: int) -> None:
    """Steps of either family over pages, 0 for borrowed arrays, and a token that their owner has written."""
    pages, query = ones(page or 33, 128, "bfloat16", 4)
    three = [array.repeat(3, axis=0) for array in (pages, pages)]
    rows = PagedRows(*three, np.array([[2, 0, 1]])) if page else BorrowedRows(pages, pages)
    for method in (Socket.as_released(), Santa(), Santa(sampler="flash")):
        drawn = {"key": Key.from_seed(1)}
        needed = drawn if method.sample_type else {}
        cache = method.prepare(rows, backend=CupyBackend(), kv_len=rows.shape[2] - 1, **needed)
        plan = cache.plan(8, **({"budget": Budget(fraction=0.25)} if "budget" in method.takes else drawn))
        plan.run(query)
        plan.append(rows, tokens=1)


@dataclass(frozen=True)
class Result:
    """NVRTC's status, zero for success, and its log, which holds that of ptxas."""

    status: int
    log: str

    def spilled_bytes(self, name: str) -> int:
        return sum(map(int, re.findall(r"(\d+) bytes spill", self._part(name))))

    def static_bytes(self, name: str) -> int:
        return sum(map(int, re.findall(r"(\d+) bytes smem", self._part(name))))

    def _part(self, name: str) -> str:
        return re.split(rf"entry function '_Z{len(name)}{name}", self.log)[1].split("entry function")[0]


PARAMETER = """
template <typename P> __device__ P parameter_of(void (*)(P));
template <typename A, typename B> struct Same { static const bool value = false; };
template <typename A> struct Same<A, A> { static const bool value = true; };
template <typename T> struct Pointer { static const bool value = false; };
template <typename T> struct Pointer<T*> { static const bool value = true; };
"""
SCALARS = {"i4": "int", "i8": "i64", "f4": "float", "f8": "double"}


def layout_asserts(struct: str, layout: Any) -> str:
    """C++ that compiles where the kernel's struct has these fields, in these places and of these types."""
    lines = [f"static_assert(sizeof({struct}) == {layout.itemsize});"]
    for name, (dtype, offset) in layout.fields.items():
        lines.append(f"static_assert(__builtin_offsetof({struct}, {name}) == {offset});")
        field = f"decltype({struct}::{name})"
        if dtype.names:
            lines.append(layout_asserts(field, dtype))
        elif dtype.str[1:] == "u8":
            lines.append(f"static_assert(Pointer<{field}>::value || Same<{field}, u64>::value);")
        else:
            lines.append(f"static_assert(Same<{field}, {SCALARS[dtype.str[1:]]}>::value);")
    return "\n".join(lines)


@dataclass(frozen=True)
class NVRTC:
    """The compiler's library, and the folder of the CUDA headers."""

    library: str
    headers: str

    def compile_launch(self, launch: Launch, arch: str) -> Result:
        """The program with what its launcher passes checked against what its kernel takes."""
        instance = launch.program.instance
        params = f"typedef decltype(parameter_of(&{instance})) Params;"
        source = [kernel_source(launch.program.file), PARAMETER, params, layout_asserts("Params", launch.params)]
        return self.compile_source("\n".join(source), arch, instance)

    def compile_source(self, source: str, arch: str, instance: str) -> Result:
        options = (f"--gpu-architecture={arch}", f"-I{self.headers}", "-Xptxas=-v", *OPTIONS)
        encoded = [option.encode() for option in options]
        lib, program, size = ctypes.CDLL(self.library), ctypes.c_void_p(), ctypes.c_size_t()
        created = lib.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
        assert created == 0
        assert lib.nvrtcAddNameExpression(program, instance.encode()) == 0
        status = lib.nvrtcCompileProgram(program, len(encoded), (ctypes.c_char_p * len(encoded))(*encoded))
        lib.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        lib.nvrtcGetProgramLog(program, log)
        lib.nvrtcDestroyProgram(ctypes.byref(program))
        return Result(status, log.value.decode())


@pytest.fixture(scope="module")
def nvrtc() -> NVRTC:
    """Found in the wheels of the dev group, under the namespace package that they share."""
    namespace = find_spec("nvidia")
    folders = [Path(path) for path in namespace.submodule_search_locations or ()] if namespace else []
    libraries = [file for folder in folders for file in sorted(folder.glob("*/lib/libnvrtc.so.*"))]
    headers = [file for folder in folders for file in sorted(folder.glob("*/include/cuda_fp16.h"))]
    if libraries and headers:
        return NVRTC(str(libraries[-1]), str(headers[-1].parent))
    message = f"NVRTC or the CUDA headers are not installed: {INSTALL}."
    if os.environ.get("REQUIRE_ALL_EXTRAS") == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@dataclass(frozen=True)
class Built:
    """What the decode steps launch on an architecture, and how their programs compiled for it."""

    arch: str
    launches: set[Launch]
    results: dict[Program, Result]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def built(request: pytest.FixtureRequest, nvrtc: NVRTC, cupy_on_cpu: ModuleType) -> Built:
    launches = launches_of(cupy_on_cpu, STEPS, request.param, SANTA_STEPS, PAGES, RACE_STEPS, RACE_SEQUENCES)
    one_each = {(launch.program, launch.params): launch for launch in launches}
    programs = [launch.program for launch in one_each.values()]
    assert len(set(programs)) == len(programs)
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        results = pool.map(nvrtc.compile_launch, one_each.values(), [request.param] * len(programs))
        return Built(request.param, launches, dict(zip(programs, results, strict=True)))


def test_every_program_compiles(built: Built) -> None:
    failed = {program: result.log for program, result in built.results.items() if result.status}
    assert not failed, "\n".join(f"{program} for {built.arch}:\n{log}" for program, log in failed.items())
    for program, result in built.results.items():
        assert f"entry function '_Z{len(program.name)}{program.name}" in result.log


def test_launches_fit_in_the_shared_memory(built: Built) -> None:
    for launch in built.launches:
        result = built.results[launch.program]
        if result.status == 0:
            assert launch.shared_bytes + result.static_bytes(launch.program.name) <= SHARED_BYTES[built.arch], launch


def test_loops_over_tokens_of_the_main_case_keep_their_state_in_registers(
    built: Built, cupy_on_cpu: ModuleType
) -> None:
    names = {"hash_keys", "score", "attend", "score_tiles", "draw_values", "read_sums", "add_tokens"}
    names |= {"bucket_sums", "read", "query_gradient"}
    launches = [
        launch
        for launch in launches_of(
            cupy_on_cpu, MAIN, built.arch, SANTA_STEPS[:1], PAGES, RACE_STEPS[:1], RACE_SEQUENCES[:2]
        )
        if launch.program.name in names and "flash = true" not in launch.program.instance
    ]
    assert {launch.program.name for launch in launches} == names
    for launch in launches:
        assert built.results[launch.program].spilled_bytes(launch.program.name) == 0, launch


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_launches_with_many_tables_fit_in_the_shared_memory(arch: str, cupy_on_cpu: ModuleType) -> None:
    largest = max(launches_of(cupy_on_cpu, LARGEST, arch), key=lambda launch: launch.shared_bytes)
    assert largest.shared_bytes <= SHARED_BYTES[arch], largest


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_whole_sequences_fit_in_the_shared_memory_or_are_refused(arch: str, cupy_on_cpu: ModuleType) -> None:
    refused = set()
    for one in product(range(1, 9), HEAD_DIMS, ("bfloat16", "float32"), (False, True)):
        planes, *others = one
        tables = min(MOST_PLANES // planes, MOST_FEATURES >> planes)
        try:
            launches = launches_of(cupy_on_cpu, [], arch, race_sequences=[(planes, tables, *others, 1)])
        except ValueError as error:
            refused.add(one if "bytes of shared memory" in str(error) else str(error))
        else:
            assert max(launch.shared_bytes for launch in launches) <= SHARED_BYTES[arch]
    if arch == "sm_90":
        assert not refused
    else:
        assert not {one for one in refused if one[2] == "bfloat16" and (one[0] < 5 or one[1] == 64)}


def test_every_kernel_of_the_sources_is_launched(cupy_on_cpu: ModuleType) -> None:
    pattern = r"__global__ void (?:__launch_bounds__\([^)]*\))?\s*(\w+)\("
    sources = {file.relative_to(KERNELS).as_posix(): file.read_text() for file in KERNELS.glob("*/*.cu")}
    written = {(file, name) for file, source in sources.items() for name in re.findall(pattern, source)}
    assert len(written) >= 8
    assert written == {
        (launch.program.file, launch.program.name)
        for launch in launches_of(cupy_on_cpu, STEPS, "sm_90", SANTA_STEPS, PAGES, RACE_STEPS, RACE_SEQUENCES)
    }


@pytest.mark.parametrize("file", sorted(KERNELS.glob("*/*.cu")), ids=lambda file: file.name)
def test_a_header_ends_with_the_files_that_define_launch_and_test_the_kernel(file: Path) -> None:
    header = file.read_text().split("\n#include")[0].splitlines()
    for line, title in zip(header[-3:], ("Reference", "Launcher", "Tests"), strict=True):
        found = re.fullmatch(rf"// {title}: (\S+(?:, \S+)*)", line)
        assert found, line
        for name in found[1].split(", "):
            assert (KERNELS.parent / name).is_file(), name
    assert file.relative_to(KERNELS).as_posix() in (KERNELS.parent / header[-2].split(": ")[1]).read_text()


def test_sources_include_only_headers_that_every_installation_has() -> None:
    for file in KERNELS.glob("*/*.cu*"):
        for name in re.findall(r"#\s*include\s*[<\"](.+?)[>\"]", file.read_text()):
            own = (KERNELS / name if "/" in name else KERNELS / "core" / name).is_file()
            assert own or name in ("cuda_fp16.h", "cuda_bf16.h") or name.startswith(("cuda/std/", "cub/")), file


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_broken_source_is_reported(nvrtc: NVRTC, arch: str) -> None:
    good = kernel_source("core/append.cu")
    assert nvrtc.compile_source(good, arch, "copy_rows").status == 0
    broken = nvrtc.compile_source(good.replace("spans[", "spends["), arch, "copy_rows")
    assert broken.status != 0
    assert '"spends"' in broken.log
    misspelt = nvrtc.compile_source(good, arch, "read_rows<ReadRowsConfig{.pages = 16}>")
    assert misspelt.status != 0
    assert "pages" in misspelt.log


def test_parameters_of_another_name_order_or_type_are_reported(nvrtc: NVRTC, cupy_on_cpu: ModuleType) -> None:
    launches = launches_of(cupy_on_cpu, STEPS[-1:], "sm_90")
    good = next(launch for launch in launches if launch.program.instance == "copy_rows")
    assert nvrtc.compile_launch(good, "sm_90").status == 0
    fields = [(name, good.params[name]) for name in good.params.names]
    swapped = [fields[1], fields[0], *fields[2:]]
    renamed = [("source", fields[0][1]), *fields[1:]]
    retyped = [(name, np.dtype("f4") if name == "packs" else dtype) for name, dtype in fields]
    for wrong in (swapped, renamed, retyped, fields[:-1]):
        assert nvrtc.compile_launch(replace(good, params=np.dtype(wrong, align=True)), "sm_90").status != 0
