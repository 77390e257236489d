"""The CuPy backend of `socket_theory`. Importing it needs no GPU; CuPy is imported on first use."""

from socket_gpu.core.requirements import missing_requirement

__all__ = ["missing_requirement"]
