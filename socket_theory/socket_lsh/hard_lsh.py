"""Hard LSH: rank tokens by how many tables put them in the query's bucket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from socket_theory.core.backend import operations
from socket_theory.core.hashing import Planes
from socket_theory.core.hashing_method import HashingMethod
from socket_theory.core.index import TokenIndex
from socket_theory.core.rows import Rows
from socket_theory.core.selector import Selector
from socket_theory.core.step import Step
from socket_theory.socket_lsh.estimator import hashed
from socket_theory.socket_lsh.operations import FAMILY


@dataclass(frozen=True)
class HardLSH(HashingMethod, Selector):
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

    num_planes: int = 10
    num_tables: int = 60

    @property
    def nominal_bits(self) -> int:
        return self.num_planes * self.num_tables

    def index(self, rows: Rows, sample: Planes, frozen: dict[str, Any]) -> TokenIndex:
        return hashed(rows, sample, frozen, norms=False)

    def scores(self, step: Step) -> Any:
        own = operations(FAMILY, step.backend)
        return own.hard_scores(step.query, step.index.arrays["codes"], step.rows.kv_range, step.sample)
