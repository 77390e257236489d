"""What methods with planes share: their number, and how they are drawn or taken."""

from __future__ import annotations

from dataclasses import dataclass

from socket_theory.core.hashing import Planes, SignHash
from socket_theory.core.method import Method
from socket_theory.core.rng import Key, require_rng_key


@dataclass(frozen=True)
class HashingMethod(Method, abstract=True):
    """A method that needs planes: num_tables tables of num_planes."""

    num_planes: int = 10
    num_tables: int = 60

    def __post_init__(self) -> None:
        law = SignHash(self.num_tables, self.num_planes, 1)
        object.__setattr__(self, "num_tables", law.num_tables)
        object.__setattr__(self, "num_planes", law.num_planes)

    def draw_planes(self, head_dim: int, key: Key | None, planes: Planes | None) -> Planes:
        if (key is None) == (planes is None):
            given = "neither" if key is None else "both"
            raise ValueError(f"{given} of key and planes were given to {type(self).__name__}: pass exactly one.")
        law = SignHash(self.num_tables, self.num_planes, head_dim)
        if planes is None:
            return law.draw(require_rng_key(key))
        if not isinstance(planes, Planes):
            raise TypeError(f"planes is of type {type(planes).__name__}: pass Planes(weights) or SignHash.draw(key).")
        have = (planes.num_tables, planes.num_planes, planes.head_dim)
        if have != (law.num_tables, law.num_planes, law.head_dim):
            raise ValueError(
                f"planes of (num_tables, num_planes, head_dim) = {have} were given: "
                f"pass planes of {(law.num_tables, law.num_planes, law.head_dim)}."
            )
        return planes
