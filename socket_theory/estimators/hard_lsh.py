"""Hard LSH: rank tokens by how many tables put them in the query's bucket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from socket_theory.backend import Backend
from socket_theory.estimators.hashing_method import HashingMethod
from socket_theory.estimators.step import Step
from socket_theory.rng import Key


@dataclass(frozen=True)
class HardLSH(HashingMethod):
    """Top-k decode by the number of bucket matches; the later token wins a tie.

    Parameters
    ----------
    num_planes, num_tables : int
        P <= 16 and L; the probability of a match in one table is (1 - theta/pi)^P (S3).
    """

    @property
    def nominal_bits(self) -> int:
        return self.num_planes * self.num_tables

    def index(self, backend: Backend, keys: Any, values: Any, spans: Any, planes: Any, center: Any) -> dict[str, Any]:
        return {"codes": backend.hash_keys(keys, spans, planes, center)}

    def scores(self, step: Step, key: Key | None) -> Any:
        cache = step.cache
        return cache.backend.hard_scores(step.query, cache.arrays["codes"], cache.spans, cache.planes)
