"""The contract of a backend: `check_backend(backend, problem)` compares every function with the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.backend import Backend, missing_members
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.core.rows import DenseRows
from socket_theory.testing.comparison import assert_scores
from socket_theory.testing.faults import ADDED, BUDGETS, SM_SCALE, added_tokens, naming, on_host, require_state
from socket_theory.testing.method_contract import check_methods
from socket_theory.testing.problem import Problem

Array = NDArray[Any]


def check_backend(backend: Backend, problem: Problem, score_error: float = 1e-4) -> None:
    """AssertionError unless every function of the Protocol, and `Dense` and `OracleTopK` made of them, agree with the
    reference.

    The sentence names the function and what differs, or the exception that it raised. Values and lse may differ by
    `TOLERANCES` of the problem's dtype, scores by an RMS of `score_error` standard deviations over tokens, stored and
    selected tokens not at all.
    """
    _require_members(backend)
    for function, check in (
        ("to_device", _check_to_device),
        ("to_host", _check_transfer),
        ("store", _check_store),
        ("write", _check_write),
        ("take", _check_take),
        ("select", _check_select),
        ("average", _check_average),
        ("attend", _check_attend),
    ):
        with naming(function):
            check(backend, problem)
    with naming("exact_scores"):
        _check_exact_scores(backend, problem, score_error)
    check_methods(backend, problem)


def _require_members(backend: Backend) -> None:
    """AssertionError naming all that the backend lacks."""
    if missing := missing_members(backend):
        raise AssertionError(f"{', '.join(missing)}: missing in {type(backend).__name__}, define all of Backend.")


def _require_same(backend: Backend, found: Any, expected: Array, kv_range: Array, what: str, axis: int = -2) -> None:
    """AssertionError unless the valid slots along `axis` are the same numbers, of the same dtype, and none is short."""
    host = on_host(backend, found)
    least = list(expected.shape)
    if host.ndim == expected.ndim:
        least[axis] = max(least[axis], host.shape[axis])
    if host.shape != tuple(least):
        raise AssertionError(f"{what} is of shape {host.shape}, expected is {expected.shape}, or more on axis {axis}.")
    if host.dtype != expected.dtype:
        raise AssertionError(f"{what} is of {host.dtype}, expected is {expected.dtype}.")
    for row, (start, length) in enumerate(kv_range):
        mine, theirs = (np.moveaxis(array[row], axis, 0)[start : start + length] for array in (host, expected))
        if not np.array_equal(mine, theirs):
            raise AssertionError(f"{what} of sequence {row} differs from the reference's.")


def _require_row_major(array: Any, what: str) -> None:
    """AssertionError unless the numbers [B, Hkv, N, D] lie in order, with or without room behind the slots of a head.

    Nothing is asked of arrays that do not say how they lie.
    """
    if not hasattr(array, "flags") or not hasattr(array, "strides"):
        return
    (batch, heads), (sequence, head), block = array.shape[:2], array.strides[:2], array[0, 0]
    least = head if heads > 1 else block.nbytes
    in_order = least >= block.nbytes and (batch == 1 or sequence >= heads * least)
    if not in_order or not block.flags.c_contiguous:
        raise AssertionError(f"{what} has strides {array.strides}, expected is a row-major copy.")


def _check_to_device(backend: Backend, problem: Problem) -> None:
    if backend.to_device(problem.query) is None:
        raise AssertionError("None was returned, expected is an array.")


def _check_transfer(backend: Backend, problem: Problem) -> None:
    back = on_host(backend, backend.to_device(problem.query))
    if back.dtype != problem.query.dtype or not np.array_equal(back, problem.query):
        raise AssertionError("a query that went to_device and back is another one.")


def _check_store(backend: Backend, problem: Problem) -> None:
    slots = problem.keys.shape[2]
    for capacity in (None, slots + ADDED):
        for array in (problem.keys, np.asfortranarray(problem.values)):
            given = backend.to_device(array.copy(order="K"))
            stored, what = backend.store(given, capacity), f"what is stored with capacity={capacity}"
            _require_same(backend, stored, array, problem.spans, what)
            _require_row_major(stored, what)
            given[...] = 0
            _require_same(
                backend, stored, array, problem.spans, "what is stored after the caller's own array was changed"
            )


def _check_write(backend: Backend, problem: Problem) -> None:
    """Three tokens behind each sequence, with and without room, in keys and in an index with tokens last.

    What was written to still holds its own tokens: an older cache reads them.
    """
    truth, put, (new, _) = NumpyBackend(), backend.to_device, added_tokens(problem)
    slots, ends = problem.keys.shape[2], problem.spans.sum(axis=1)
    grown = problem.spans + np.array([0, ADDED])
    for axis, old, more in ((-2, problem.keys, new), (-1, problem.keys[..., 0], new[..., 0])):
        expected = truth.write(old.copy(), more, ends, None, axis)
        for capacity in (None, slots + ADDED):
            held = backend.store(put(old), capacity) if axis == -2 else put(old.copy())
            written = backend.write(held, put(more), ends, capacity, axis)
            what = f"the array with tokens written along axis {axis} with capacity={capacity}"
            _require_same(backend, written, expected, grown, what, axis)
            again = backend.write(written, put(more), ends + ADDED, None, axis)
            twice = truth.write(expected.copy(), more, ends + ADDED, None, axis)
            _require_same(backend, again, twice, grown + np.array([0, ADDED]), f"{what}, written twice", axis)
            for older, own, kv_range in ((held, old, problem.spans), (written, expected, grown)):
                _require_same(backend, older, own, kv_range, f"what an older cache has in {what}", axis)


def _check_take(backend: Backend, problem: Problem) -> None:
    batch = len(problem.keys)
    for order in (np.arange(batch)[::-1], np.array([1, 0, 1]) % batch, np.array([batch - 1])):
        taken = backend.take(backend.to_device(problem.keys), order)
        _require_same(
            backend, taken, problem.keys[order], problem.spans[order], f"a cache of sequences {order.tolist()}"
        )


def _exact(problem: Problem) -> Array:
    return NumpyBackend().exact_scores(problem.query, _reference_rows(problem), SM_SCALE)


def _reference_rows(problem: Problem) -> DenseRows:
    return DenseRows(problem.keys.copy(), problem.values.copy(), problem.spans, NumpyBackend())


def _backend_rows(backend: Backend, problem: Problem) -> DenseRows:
    keys, values = (backend.to_device(array.copy()) for array in (problem.keys, problem.values))
    return DenseRows(keys, values, problem.spans, backend)


def _check_exact_scores(backend: Backend, problem: Problem, score_error: float) -> None:
    found = backend.exact_scores(backend.to_device(problem.query), _backend_rows(backend, problem), SM_SCALE)
    host, expected = on_host(backend, found), _exact(problem)
    if host.dtype != np.float32 or host.shape != expected.shape:
        raise AssertionError(f"scores are {host.dtype} {host.shape}, return float32 {expected.shape}.")
    assert_scores(host, expected, score_error)


def _check_select(backend: Backend, problem: Problem) -> None:
    """On the very same scores, those that tie among them."""
    exact, kv_heads = _exact(problem), problem.keys.shape[1]
    for scores, kind in ((exact, "distinct"), (np.round(exact), "tied")):
        for budget in BUDGETS:
            expected = NumpyBackend().select(scores, problem.spans, budget, kv_heads)
            found = on_host(backend, backend.select(backend.to_device(scores), problem.spans, budget, kv_heads))
            if found.dtype != np.int32 or not np.array_equal(found, expected):
                raise AssertionError(f"the selection of {budget} from the same {kind} scores differs.")


def _check_attend(backend: Backend, problem: Problem) -> None:
    """Over the very same slots."""
    rows, put, dtype = _backend_rows(backend, problem), backend.to_device, problem.query.dtype
    for budget in BUDGETS:
        kept = NumpyBackend().select(_exact(problem), problem.spans, budget, problem.keys.shape[1])
        for sm_scale in (SM_SCALE, 1.5):
            expected = NumpyBackend().attend(problem.query, _reference_rows(problem), kept, sm_scale)
            found = backend.attend(put(problem.query), rows, put(kept), sm_scale)
            require_state(backend, found, expected, dtype, f"over the slots of {budget} at sm_scale={sm_scale}")


def _check_average(backend: Backend, problem: Problem) -> None:
    """With the very same weights, of which some are zero."""
    logs = _exact(problem).astype(np.float64)
    few = np.where(logs < np.median(logs[np.isfinite(logs)]), -np.inf, logs - 3)
    for weights in (logs, few):
        expected = NumpyBackend().average(weights, _reference_rows(problem))
        found = backend.average(backend.to_device(weights), _backend_rows(backend, problem))
        require_state(backend, found, expected, problem.query.dtype, "of the same log weights")
