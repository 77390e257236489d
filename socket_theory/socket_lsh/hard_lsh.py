"""Hard LSH: rank tokens by how many tables put them in the query's bucket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from socket_theory.core.backend import Backend
from socket_theory.core.hashing_method import HashingMethod
from socket_theory.core.rng import Key
from socket_theory.core.step import Step


@dataclass(frozen=True)
class HardLSH(HashingMethod):
    """Top-k decode by hard hash collisions: the share of tables in which query and key have one code.

    A table has P Gaussian planes of length head_dim; the code of a vector x in it is the P signs of <w, x>, 0 counted
    as +. Two vectors at the angle theta have the same code with probability (1 - theta/pi)^P (S3). Scores are multiples
    of 1/L, so ties are many, and the later token wins one. The kept tokens get exact softmax attention.

    A step reads the index of every valid token, P L bits a KV head (stored are 16 L on a CPU, P times L rounded up to a
    multiple of 32 on a GPU), and keys and values of the kept tokens only.

    Parameters
    ----------
    num_planes : int
        P from 1 to 16. Raised, a match says more, and fewer tokens have any. Bits and time grow with P, but for the
        bits on a CPU.
    num_tables : int
        L >= 1. Raised, scores have more steps and less noise, as 1/sqrt(L); bits and time grow as L.

    Raises
    ------
    TypeError, ValueError
        For a count that is no integer or out of range.

    References
    ----------
    Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002; claim S3.
    """

    @property
    def nominal_bits(self) -> int:
        return self.num_planes * self.num_tables

    def index(self, backend: Backend, keys: Any, values: Any, spans: Any, planes: Any, center: Any) -> dict[str, Any]:
        return {"codes": backend.hash_keys(keys, spans, planes, center)}

    def scores(self, step: Step, key: Key | None) -> Any:
        cache = step.cache
        return cache.backend.hard_scores(step.query, cache.arrays["codes"], cache.spans, cache.planes)
