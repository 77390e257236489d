"""For tests, ours and other backends': the tolerance table, comparison, inputs, and the contract of a backend."""

from socket_theory.testing.backend_contract import check_backend
from socket_theory.testing.comparison import (
    TOLERANCES,
    assert_close,
    assert_rounded,
    assert_scores,
    relative_rms,
    rounding_margin,
)
from socket_theory.testing.problem import Problem, random_problem

__all__ = [
    "TOLERANCES",
    "Problem",
    "assert_close",
    "assert_rounded",
    "assert_scores",
    "check_backend",
    "random_problem",
    "relative_rms",
    "rounding_margin",
]
