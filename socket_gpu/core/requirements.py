"""What a GPU run needs, and which of it this machine lacks."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import distributions
from importlib.util import find_spec
from typing import Any

from socket_gpu.core._compile import OPTIONS

_INSTALL = "pip install 'socket-theory[gpu-cuda12]' (or gpu-cuda13 for a CUDA 13 driver)"
_PROBE = """
#include <cuda_fp16.h>
#include <cuda_bf16.h>
struct ProbeConfig { int size; };
template <ProbeConfig C> __global__ void probe() {}
"""
_INSTANCE = "probe<ProbeConfig{.size = 1}>"


def missing_requirement() -> str | None:
    """A sentence on the first of package, driver, device and headers that is missing here; None if all are there."""
    wheels = cupy_wheels()
    if len(wheels) > 1:
        return f"{' and '.join(wheels)} are installed together and overwrite each other: uninstall all but one of them."
    if find_spec("cupy") is None:
        return f"the package CuPy is not installed: {_INSTALL}."
    try:
        cupy = import_module("cupy")
    except ImportError as error:
        return f"the package CuPy is installed but does not import ({error}): reinstall it, {_INSTALL}."
    return _missing_driver_or_device(cupy) or _missing_headers(cupy)


def cupy_wheels() -> list[str]:
    """Names of the installed distributions that provide the module cupy."""
    names = {str(found.metadata["Name"]).lower() for found in distributions()}
    return sorted(name for name in names if name == "cupy" or name.startswith(("cupy-cuda", "cupy-rocm")))


def _missing_driver_or_device(cupy: Any) -> str | None:
    runtime = cupy.cuda.runtime
    try:
        if runtime.driverGetVersion() == 0:
            return "no NVIDIA driver is loaded: install the driver, then check with nvidia-smi."
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        return f"the NVIDIA driver or its device cannot be used ({error}): check with nvidia-smi."
    return None if count else "the NVIDIA driver sees no device: check nvidia-smi and CUDA_VISIBLE_DEVICES."


def _missing_headers(cupy: Any) -> str | None:
    try:
        module = cupy.RawModule(code=_PROBE, options=OPTIONS, name_expressions=(_INSTANCE,))
        module.get_function(_INSTANCE)
    except Exception as error:
        kind = type(error).__name__
        return f"the CUDA headers do not compile as C++20 ({kind}): install the [ctk] extra of CuPy, {_INSTALL}."
    return None
