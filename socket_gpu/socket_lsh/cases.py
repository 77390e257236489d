"""What is measured of SOCKET: shapes of a decode step, and settings at each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from socket_gpu.bench.layouts import LAYOUTS, OWN
from socket_gpu.bench.shape import Shape
from socket_theory.core.selection import Budget
from socket_theory.socket_lsh.estimator import Socket

INDEX = "index"


@dataclass(frozen=True)
class Setting:
    """SOCKET's settings, the tokens they keep, and where keys and values lie."""

    method: Socket
    budget: Budget
    layout: str = OWN


def keeping(divisor: int) -> Setting:
    """SOCKET as released, keeping one token in `divisor`."""
    return Setting(Socket.as_released(), Budget(fraction=1 / divisor, sink=128, window=128))


RELEASED = keeping(33)


# The setting with the least error of those that `evaluate attention` compares on SmolLM2 with 60 tables of 10 planes.
RECOMMENDED = Socket(temperature=1.0)
# As `evaluate attention` has it by default, so that a row's error and its speed are those of one configuration.
_EVALUATED = Budget(fraction=0.05, sink=16, window=64)
_COMPARED = [Setting(method, _EVALUATED) for method in (Socket.as_released(), Socket(), RECOMMENDED)]

_GQA = Shape(1, 32, 8, 131072)
GROUPS: dict[str, list[tuple[Shape, Setting]]] = {
    "main": [
        (Shape(1, 32, 32, 131072), RELEASED),
        (_GQA, RELEASED),
        (Shape(8, 32, 8, 32768), RELEASED),
        (Shape(1, 32, 8, 32768), RELEASED),
    ],
    "settings": [
        (shape, setting) for shape in (Shape(1, 32, 32, 131072), _GQA, Shape(1, 32, 8, 32768)) for setting in _COMPARED
    ],
    "variants": [
        (_GQA, replace(RELEASED, method=replace(RELEASED.method, num_planes=8))),
        (_GQA, keeping(10)),
        (_GQA, keeping(50)),
    ],
    "rows": [(_GQA, replace(RELEASED, layout=layout)) for layout in LAYOUTS],
    "growth": [(Shape(1, 32, 8, 16384 * 2**doubling), RELEASED) for doubling in range(7)],
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
