"""What is measured: shapes of a decode step, and settings of SOCKET at each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from socket_theory.estimators import Socket
from socket_theory.selection import Budget

SEED = 0
INDEX = "index"


@dataclass(frozen=True)
class Shape:
    """A decode step over caches of equal length, in bfloat16."""

    batch: int
    num_qo_heads: int
    num_kv_heads: int
    kv_len: int
    head_dim: int = 128

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.num_qo_heads}/{self.num_kv_heads} heads, {self.kv_len} tokens"


@dataclass(frozen=True)
class Setting:
    """SOCKET as released with `num_planes` planes a table, keeping round(kv_len / divisor) tokens."""

    num_planes: int = 10
    divisor: int = 33

    @property
    def method(self) -> Socket:
        return replace(Socket.as_released(), num_planes=self.num_planes)

    def budget(self, kv_len: int) -> Budget:
        return Budget(tokens=round(kv_len / self.divisor), sink=128, window=128)


_RELEASED, _GQA = Setting(), Shape(1, 32, 8, 131072)
GROUPS: dict[str, list[tuple[Shape, Setting]]] = {
    "main": [
        (Shape(1, 32, 32, 131072), _RELEASED),
        (_GQA, _RELEASED),
        (Shape(8, 32, 8, 32768), _RELEASED),
        (Shape(1, 32, 8, 32768), _RELEASED),
    ],
    "variants": [(_GQA, Setting(num_planes=8)), (_GQA, Setting(divisor=10)), (_GQA, Setting(divisor=50))],
    "growth": [(Shape(1, 32, 8, 16384 * 2**doubling), _RELEASED) for doubling in range(7)],
}
GROUP_NAMES = (*GROUPS, INDEX)
INDEX_SHAPE = Shape(1, 32, 32, 131072)


def cases(groups: Iterable[str]) -> dict[Shape, list[Setting]]:
    """The settings to measure at each shape of these groups; what two groups share is measured once."""
    found: dict[Shape, list[Setting]] = {}
    for group in groups:
        for shape, setting in GROUPS.get(group, []):
            settings = found.setdefault(shape, [])
            if setting not in settings:
                settings.append(setting)
    return found
