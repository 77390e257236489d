"""What the name "cupy" stands for: the backend, and each family's own operations on it."""

from __future__ import annotations

from socket_gpu.core.backend import CupyBackend
from socket_gpu.socket_lsh.operations import CupyOperations
from socket_theory.core.backend import register_operations
from socket_theory.socket_lsh.operations import FAMILY as SOCKET_LSH

register_operations(SOCKET_LSH, CupyBackend.name, CupyOperations())

__all__ = ["CupyBackend"]
