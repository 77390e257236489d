"""Random keys, values and queries on the device, and giving their memory back."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.bench.shape import SEED, Shape
from socket_theory.core.checks import bfloat16

QUERIES = 8


@dataclass(frozen=True, eq=False)
class Inputs:
    """Keys, values [B, Hkv, N, D] and QUERIES steps' queries [QUERIES, B, Hq, D], standard normal in bfloat16."""

    keys: Any
    values: Any
    queries: Any

    @classmethod
    def draw(cls, shape: Shape) -> Inputs:
        """The inputs of a shape: cuRAND's default generator, seeded with SEED, in the order keys, values, queries."""
        random = import_module("cupy").random.RandomState(SEED)
        rows = (shape.batch, shape.num_kv_heads, shape.kv_len, shape.head_dim)
        queries = (QUERIES, shape.batch, shape.num_qo_heads, shape.head_dim)
        return cls(*(normal_bfloat16(random, size) for size in (rows, rows, queries)))


def normal_bfloat16(random: Any, shape: tuple[int, ...]) -> Any:
    """Standard normals rounded to bfloat16, drawn a [N, D] piece at a time so that float32 never takes much memory."""
    bits = import_module("cupy").empty(shape, dtype=np.uint16)
    for place in np.ndindex(*shape[:2]):
        drawn = random.standard_normal(shape[2:], dtype=np.float32).view(np.uint32)
        bits[place] = ((drawn + np.uint32(0x8000)) >> np.uint32(16)).astype(np.uint16)
    return bits.view(bfloat16())


def held_bytes() -> int:
    """What arrays of CuPy hold now, and the most that torch's tensors have held since its last reset."""
    held = int(import_module("cupy").get_default_memory_pool().used_bytes())
    try:
        return held + int(import_module("torch").cuda.max_memory_allocated())
    except ImportError:
        return held


def free_memory() -> None:
    """Return what the allocators of CuPy and, where it is loaded, torch hold but do not use."""
    import_module("cupy").get_default_memory_pool().free_all_blocks()
    try:
        import_module("torch").cuda.empty_cache()
    except ImportError:
        return
