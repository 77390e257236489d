"""Weights as integers, whose sums, multiples and comparisons have no rounding: a float is an integer over 2^k."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.checks import require_count

Float = NDArray[np.float64]
MOST_DRAWS = 2**32


def require_draws(value: int) -> int:
    """`value` as an int if it is an integer from 1 to 2^32, else TypeError or ValueError.

    Beyond it the places S F_j of systematic counts, in float64, keep fewer than 21 bits of their fractions.
    """
    samples = require_count("num_samples", value)
    if samples > MOST_DRAWS:
        raise ValueError(f"num_samples={samples} was given: pass at most 2^32 = {MOST_DRAWS} draws.")
    return samples


def as_integers(numbers: Float) -> tuple[NDArray[Any], int]:
    """Python integers n and one k with numbers = n / 2^k exactly: finite numbers [N] -> n [N] of dtype object."""
    mantissas, exponents = np.frexp(numbers)
    power = max(0, 53 - int(exponents.min()))
    integers = np.ldexp(mantissas, 53).astype(np.int64).astype(object)
    return np.asarray(integers << (exponents - 53 + power).astype(object)), power


class Pieces(NamedTuple):
    """Overlaps of tokens with strata, arrays [M], M < N + S, by stratum and then by token.

    strata, tokens : which two overlap. overlaps : S times the overlap, above 0, rounded once. ends : S times the place
    where it ends, between m and m + 1 in stratum m, rounded once.
    """

    strata: NDArray[np.int64]
    tokens: NDArray[np.int64]
    overlaps: Float
    ends: Float

    def draw(self, points: Float) -> NDArray[np.int64]:
        """The token of each stratum at uniforms [..., S]: never one that the stratum does not meet.

        In float64 a border inside stratum m is moved by some 2^-52 m of the stratum at most.
        """
        count = points.shape[-1]
        borders = np.searchsorted(self.strata, np.arange(count + 1))
        found = np.searchsorted(self.ends, np.arange(count) + points, side="right")
        return np.asarray(self.tokens[np.clip(found, borders[:-1], borders[1:] - 1)])


def strata_of(weights: Float, num_samples: int) -> Pieces:
    """Which token meets which of S equal strata of probability, and the token's probability in the stratum.

    The overlap of token j with stratum m is that of [F_(j-1), F_j) and [m/S, (m+1)/S), F the distribution function of
    the weights as they are given, without rounding.
    """
    sums = np.cumsum(as_integers(weights)[0])
    ends, total = num_samples * sums, sums[-1]
    cuts = np.unique(np.concatenate([ends, total * np.arange(num_samples + 1).astype(object)]))
    starts, lengths = cuts[:-1], np.diff(cuts)
    overlaps = np.maximum((lengths / total).astype(np.float64), np.finfo(np.float64).smallest_subnormal)
    tokens = np.searchsorted(ends, starts, side="right").astype(np.int64)
    return Pieces((starts // total).astype(np.int64), tokens, overlaps, (cuts[1:] / total).astype(np.float64))
