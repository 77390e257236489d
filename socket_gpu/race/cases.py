"""What is measured of RACE: shapes, dtypes and passes, in groups that can be asked for one by one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from socket_gpu.bench.shape import Shape

PLANES, TABLES, BETA = 4, 4, 1.0
HEADS, LEN = 4, 128
SIZES = tuple(2**power for power in (16, 18, 20, 22, 23))
GOAL = 9 * 2**20
"""The tokens that are to go through 80 GB in one pass."""
STEP = 2**17
"""The largest size is a multiple of it."""
MIDDLE = 2**20
CPU_SIZES = (65536, 262144)
ELEMENTS = {"bfloat16": 2, "float32": 4}


@dataclass(frozen=True)
class Case:
    """Whole sequences of one shape: as many queries as keys, in one dtype."""

    shape: Shape
    causal: bool
    dtype: str = "bfloat16"

    def __str__(self) -> str:
        form = "causal" if self.causal else "not causal"
        return f"{self.shape}, head_dim {self.shape.head_dim}, {self.dtype}, {form}"

    @property
    def element(self) -> int:
        return ELEMENTS[self.dtype]

    def settings(self, backward: bool) -> dict[str, Any]:
        """The settings of a row."""
        return {
            "causal": self.causal,
            "backward": backward,
            "dtype": self.dtype,
            "num_planes": PLANES,
            "num_tables": TABLES,
            "beta": BETA,
        }

    @property
    def bytes_at_least(self) -> int:
        """Of q, k, v, o and their gradients."""
        heads = 4 * (self.shape.num_qo_heads + self.shape.num_kv_heads)
        return heads * self.shape.batch * self.shape.kv_len * self.shape.head_dim * self.element


def sequences(tokens: int, causal: bool, dtype: str = "bfloat16", heads: tuple[int, int] = (HEADS, HEADS)) -> Case:
    """The case of that many tokens in one sequence, with (query heads, KV heads)."""
    return Case(Shape(1, *heads, tokens, LEN), causal, dtype)


GROUPS: dict[str, tuple[Case, ...]] = {
    "causal": tuple(sequences(tokens, True) for tokens in SIZES),
    "whole": tuple(sequences(tokens, False) for tokens in SIZES),
    "variants": (
        *(sequences(MIDDLE, causal, "float32") for causal in (True, False)),
        *(sequences(MIDDLE, causal, heads=(8, 2)) for causal in (True, False)),
    ),
}
LARGEST, PEERS, CPU = "largest", "peers", "cpu"
GROUP_NAMES = (*GROUPS, LARGEST, PEERS, CPU)


def cases(groups: Iterable[str]) -> list[Case]:
    """The cases of these groups, apart from those that depend on the machine's memory and on what peers take."""
    return [case for group in groups for case in GROUPS.get(group, ())]


def largest_case(free_bytes: int, spare_bytes: int) -> Case:
    """The most tokens whose tensors leave `spare_bytes` of `free_bytes`, causal, in the shape of the other cases."""
    one = sequences(STEP, True)
    return sequences(max((free_bytes - spare_bytes) // one.bytes_at_least, 1) * STEP, True)


def series(row: dict[str, Any]) -> tuple[Any, ...]:
    """What the rows of a record that differ in their tokens only have in common."""
    settings = row["settings"]
    passes = settings["causal"], settings["backward"], settings["dtype"]
    return row["method"], *passes, row["num_qo_heads"], row["num_kv_heads"]
