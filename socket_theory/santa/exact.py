"""Weights as integers, whose sums, multiples and comparisons have no rounding: a float is an integer over 2^k."""

from __future__ import annotations

from typing import Any

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


def strata_of(weights: Float, num_samples: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Float]:
    """Which token meets which of S equal strata of probability, and the token's probability in the stratum.

    Three arrays [M], M < N + S, by stratum and then by token: strata, tokens, and S times the overlap, which is above 0
    and rounded once. The overlap of token j with stratum m is that of [F_(j-1), F_j) and [m/S, (m+1)/S), F the
    distribution function of the weights as they are given, without rounding.
    """
    sums = np.cumsum(as_integers(weights)[0])
    ends, total = num_samples * sums, sums[-1]
    cuts = np.unique(np.concatenate([ends, total * np.arange(num_samples + 1).astype(object)]))
    starts, lengths = cuts[:-1], np.diff(cuts)
    overlaps = np.maximum((lengths / total).astype(np.float64), np.finfo(np.float64).smallest_subnormal)
    return (starts // total).astype(np.int64), np.searchsorted(ends, starts, side="right").astype(np.int64), overlaps
