"""The CuPy backend: for now it only says what it would need."""

from __future__ import annotations

from socket_gpu.requirements import missing_requirement


class CupyBackend:
    """Not written yet. Constructing it raises RuntimeError naming what is missing on this machine, or that."""

    name = "cupy"

    def __init__(self) -> None:
        missing = missing_requirement()
        if missing:
            raise RuntimeError(f"CuPy and CUDA arrays need a GPU backend, and {missing}")
        raise RuntimeError("this version has no GPU kernels yet: pass NumPy or torch CPU arrays.")
