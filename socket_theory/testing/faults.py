"""What the parts of a backend's contract share: inputs, and faults named by the function that has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.backend import Backend
from socket_theory.core.rng import Key
from socket_theory.core.selection import Budget
from socket_theory.testing.comparison import assert_close
from socket_theory.testing.problem import Problem

Array = NDArray[Any]

BUDGETS = (
    Budget(tokens=9, sink=2, window=3),
    Budget(fraction=0.3, per="kv_head"),
    Budget(tokens=12, sink=1, window=2, per="kv_head"),
    Budget(tokens=10**6),
)
SM_SCALE, ADDED = 0.25, 3


@contextmanager
def naming(function: str) -> Iterator[None]:
    """Every exception as an AssertionError that says which function it is about."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{function}: {str(error) or 'an assertion in it failed.'}") from error
    except Exception as error:
        raise AssertionError(f"{function}: {type(error).__name__} was raised ({error}).") from error


def on_host(backend: Backend, array: Any) -> Array:
    """What a function of the backend returned, as a NumPy array."""
    if array is None:
        raise AssertionError("None was returned, expected is an array.")
    return np.asarray(backend.to_host(array))


def added_tokens(problem: Problem) -> tuple[Array, Array]:
    """Keys and values of the tokens that the checks append, [B, Hkv, 3, D] each."""
    draw = Key.from_seed(0).generator()
    added: list[Array] = []
    for array in (problem.keys, problem.values):
        shape = (*array.shape[:2], ADDED, array.shape[3])
        added.append(draw.standard_normal(shape).astype(array.dtype))
    return added[0], added[1]


def require_state(backend: Backend, found: Any, expected: Any, dtype: Any, what: str) -> None:
    """AssertionError unless `found` is a value and an lse, and these are those expected."""
    if not isinstance(found, tuple) or len(found) != 2:
        given = f"a tuple of {len(found)}" if isinstance(found, tuple) else type(found).__name__
        raise AssertionError(f"{given} was returned {what}, expected is the tuple (value, lse).")
    for name, left, right in zip(("value", "lse"), found, expected, strict=True):
        try:
            assert_close(on_host(backend, left), on_host(backend, right), dtype)
        except AssertionError as error:
            raise AssertionError(f"the {name} {what} differs from the reference's: {error}") from None
