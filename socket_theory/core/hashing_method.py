"""What methods with planes share: their number, and how they are drawn or taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from socket_theory.core.hashing import Planes, SignHash
from socket_theory.core.method import Method
from socket_theory.core.rng import Key


@dataclass(frozen=True)
class HashingMethod(Method, abstract=True):
    """A method that needs planes: num_tables tables of num_planes."""

    num_planes: int
    num_tables: int

    sample_type: ClassVar[type | None] = Planes

    def __post_init__(self) -> None:
        law = SignHash(self.num_tables, self.num_planes, 1)
        object.__setattr__(self, "num_tables", law.num_tables)
        object.__setattr__(self, "num_planes", law.num_planes)

    def law(self, head_dim: int) -> SignHash:
        """What planes are drawn from."""
        return SignHash(self.num_tables, self.num_planes, head_dim)

    def draw(self, head_dim: int, key: Key) -> Planes:
        return self.law(head_dim).draw(key)

    def check_sample(self, sample: Planes, head_dim: int) -> None:
        have, want = (
            (sample.num_tables, sample.num_planes, sample.head_dim),
            (self.num_tables, self.num_planes, head_dim),
        )
        if have != want:
            raise ValueError(
                f"planes of (num_tables, num_planes, head_dim) = {have} were given: pass planes of {want}."
            )
