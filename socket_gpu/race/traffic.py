"""The bytes that each pass of RACE's two-level scheme has to move, and the least time that a device needs for them.

Counted are queries, keys, values, outputs and gradients, each once in every pass that reads or writes it. Not counted
are the sums of tiles and two numbers for each query, which are few beside them, and what the L2 cache could keep from
one pass to the next. Another scheme may have fewer passes: this is the floor of these passes, not of all algorithms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from socket_gpu.bench.shape import Shape


@dataclass(frozen=True)
class Pass:
    """Rows of length head_dim that a pass (reads, writes) for each token: of every query head, and of every KV head."""

    asked: tuple[int, int] = (0, 0)
    held: tuple[int, int] = (0, 0)

    def moved(self, shape: Shape, element: int) -> tuple[int, int]:
        """Bytes read and bytes written, with numbers of `element` bytes."""
        row = shape.batch * shape.kv_len * shape.head_dim * element
        heads = shape.num_qo_heads, shape.num_kv_heads
        read, written = (
            row * sum(n * rows[place] for n, rows in zip(heads, (self.asked, self.held), strict=True))
            for place in (0, 1)
        )
        return read, written


# (read, written), by the names of the stages: q and g are asked, k and v are held. "sums of keys": k, v. "read": q and,
# causal, k, v; o. "query gradient": q, g and, causal, k, v; dq. "sums of queries": q, g. "key gradient": k, v and,
# causal, q, g; dk, dv.
CAUSAL_FORWARD: Mapping[str, Pass] = {
    "sums of keys": Pass(held=(2, 0)),
    "read": Pass(asked=(1, 1), held=(2, 0)),
}
CAUSAL_BACKWARD: Mapping[str, Pass] = {
    "query gradient": Pass(asked=(2, 1), held=(2, 0)),
    "sums of queries": Pass(asked=(2, 0)),
    "key gradient": Pass(asked=(2, 0), held=(2, 2)),
}
WHOLE_FORWARD: Mapping[str, Pass] = {
    "sums of keys": Pass(held=(2, 0)),
    "read": Pass(asked=(1, 1)),
}
WHOLE_BACKWARD: Mapping[str, Pass] = {
    "query gradient": Pass(asked=(2, 1)),
    "sums of queries": Pass(asked=(2, 0)),
    "key gradient": Pass(held=(2, 2)),
}
_ONCE = {False: Pass(asked=(1, 1), held=(2, 0)), True: Pass(asked=(2, 2), held=(2, 2))}


def passes(causal: bool, backward: bool) -> dict[str, Pass]:
    """The passes of a forward run, or of a forward and a backward run, by name and in order."""
    forward, after = (CAUSAL_FORWARD, CAUSAL_BACKWARD) if causal else (WHOLE_FORWARD, WHOLE_BACKWARD)
    return {**forward, **(after if backward else {})}


def race_bytes(shape: Shape, causal: bool, backward: bool, element: int = 2) -> int:
    """Bytes that all passes read and write."""
    return sum(sum(part.moved(shape, element)) for part in passes(causal, backward).values())


def tensor_bytes(shape: Shape, backward: bool, element: int = 2) -> int:
    """Bytes of the tensors, each once: q, k, v, o; with a backward run also the gradients of all four."""
    return sum(_ONCE[backward].moved(shape, element))


def floor_us(moved: tuple[int, int], read_tb_s: float, copy_tb_s: float) -> float:
    """Microseconds for bytes (read, written) on a device that reads, and copies, that many TB/s.

    What is written is moved at the rate of a copy, together with as many bytes read; the other bytes at the rate of a
    read. A copy's rate counts both its directions.
    """
    read, written = moved
    return ((read + written - 2 * min(read, written)) / read_tb_s + 2 * min(read, written) / copy_tb_s) / 1e6


def stage_floors(
    shape: Shape, causal: bool, backward: bool, element: int, read_tb_s: float, copy_tb_s: float
) -> dict[str, float]:
    """`floor_us` of each pass by its name."""
    return {
        name: floor_us(part.moved(shape, element), read_tb_s, copy_tb_s)
        for name, part in passes(causal, backward).items()
    }
