"""What a time was measured on."""

from __future__ import annotations

import subprocess
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from socket_gpu.core.requirements import cupy_wheels
from socket_theory.evaluate.provenance import versions

_LIBRARIES = ("ml_dtypes", "flashinfer-python", "triton", "fla-core")


def device_name() -> str:
    """The current device's name as its driver gives it."""
    runtime = import_module("cupy").cuda.runtime
    name = runtime.getDeviceProperties(runtime.getDevice())["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def driver_version() -> str:
    """The driver's version by nvidia-smi, or the CUDA version it supports where that command is missing."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return f"CUDA {import_module('cupy').cuda.runtime.driverGetVersion()}"


def library_versions() -> dict[str, str]:
    """Versions of Python, of this package, and of what the kernels and their peers are built with."""
    runtime = import_module("cupy").cuda.runtime
    found = versions() | {"cuda_runtime": str(runtime.runtimeGetVersion())}
    for name in (*cupy_wheels(), *_LIBRARIES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | _cudnn()


def _cudnn() -> dict[str, Any]:
    try:
        return {"cudnn": str(import_module("torch").backends.cudnn.version())}
    except ImportError:
        return {}
