"""For tests, ours and other backends': the tolerance table, comparison, inputs, and the contract of a backend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.backend import Backend
from socket_theory.core.baselines import Dense, OracleTopK
from socket_theory.core.cache import Cache
from socket_theory.core.checks import require_float
from socket_theory.core.estimate import Estimate
from socket_theory.core.hashing import Planes, SignHash
from socket_theory.core.method import Method
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.core.rng import Key
from socket_theory.core.rows import DenseRows
from socket_theory.core.selection import Budget

Array = NDArray[Any]

TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "float16": 3e-3, "bfloat16": 1e-2}


def relative_rms(actual: Any, expected: Any) -> float:
    """RMS of the difference over RMS of `expected`; NaN anywhere gives NaN."""
    left, right = (np.asarray(a, dtype=np.float64) for a in (actual, expected))
    return float(np.sqrt(np.mean((left - right) ** 2)) / max(float(np.sqrt(np.mean(right**2))), 1e-300))


def assert_close(actual: Any, expected: Any, dtype: Any) -> None:
    """AssertionError unless shapes agree and `relative_rms` is within the table's tolerance of `dtype`."""
    if np.shape(actual) != np.shape(expected):
        raise AssertionError(f"shapes differ: {np.shape(actual)} against {np.shape(expected)}.")
    error, allowed = relative_rms(actual, expected), TOLERANCES[require_float("dtype", dtype)]
    if not error <= allowed:
        raise AssertionError(f"the relative RMS error is {error:.3g}, allowed for {dtype} is {allowed:g}.")


def rounding_margin(keys: Array, planes: Planes, center: Array | float = 0.0) -> Array:
    """Where a bit is certain on every backend: |<k-c, w>| > d 2^-23 |k-c| |w|.

    Shapes: keys [N, D] -> bool [L, P, N].
    """
    shifted = keys.astype(np.float64) - center
    projections = np.einsum("nd,lpd->lpn", shifted, planes.weights, optimize=True)
    lengths = np.linalg.norm(planes.weights, axis=-1)[..., None] * np.linalg.norm(shifted, axis=-1)
    return np.asarray(np.abs(projections) > planes.head_dim * 2.0**-23 * lengths)


def assert_scores(actual: Array, expected: Array, allowed: float) -> None:
    """AssertionError unless scores are -inf on the same slots, and their RMS error is within `allowed` standard
    deviations of the expected ones over tokens."""
    valid = np.isfinite(expected)
    if not np.array_equal(valid, np.isfinite(actual)) or (actual[~valid] != -np.inf).any():
        raise AssertionError("scores are finite on other slots than the reference's.")
    spread = max(float(np.std(expected[valid], dtype=np.float64)), 1e-6)
    error = float(np.sqrt(np.mean((actual[valid].astype(np.float64) - expected[valid]) ** 2)))
    if not error <= allowed * spread:
        raise AssertionError(f"the score error is {error / spread:.3g} standard deviations, allowed is {allowed:g}.")


@dataclass(frozen=True, eq=False)
class Problem:
    """A random decode step: query [B, Hq, D], keys and values [B, Hkv, N, D], spans [B, 2], planes."""

    query: Array
    keys: Array
    values: Array
    spans: Array
    planes: Planes


def random_problem(
    key: Key,
    *,
    batch: int = 2,
    num_qo_heads: int = 4,
    num_kv_heads: int = 2,
    slots: int = 97,
    head_dim: int = 32,
    num_tables: int = 12,
    num_planes: int = 10,
    dtype: Any = np.float32,
) -> Problem:
    """Gaussian inputs with ragged spans (left and right padding); invalid slots hold NaN."""
    draw = key.fold_in("problem").generator()
    start = draw.integers(0, max(1, slots // 4), batch)
    length = draw.integers(1, slots - start + 1)
    query = 2 * draw.standard_normal((batch, num_qo_heads, head_dim))
    keys, values = draw.standard_normal((2, batch, num_kv_heads, slots, head_dim))
    for row in range(batch):
        for array in (keys, values):
            array[row, :, : start[row]] = np.nan
            array[row, :, start[row] + length[row] :] = np.nan
    planes = SignHash(num_tables, num_planes, head_dim).draw(key)
    spans = np.stack([start, length], axis=1).astype(np.int64)
    return Problem(query.astype(dtype), keys.astype(dtype), values.astype(dtype), spans, planes)


_BUDGETS = (
    Budget(tokens=9, sink=2, window=3),
    Budget(fraction=0.3, per="kv_head"),
    Budget(tokens=12, sink=1, window=2, per="kv_head"),
    Budget(tokens=10**6),
)
_SCALE = 0.25
_ADDED = 3


def check_backend(backend: Backend, problem: Problem, score_error: float = 1e-4) -> None:
    """AssertionError unless every function of the Protocol, and `Dense` and `OracleTopK` made of them, agree with the
    reference.

    The sentence names the function and what differs. Values and lse may differ by `TOLERANCES` of the problem's dtype,
    scores by an RMS of `score_error` standard deviations over tokens, stored and selected tokens not at all.
    """
    for function, check in (
        ("to_host", _check_transfer),
        ("store", _check_store),
        ("write", _check_write),
        ("take", _check_take),
        ("select", _check_select),
        ("average", _check_average),
        ("attend", _check_attend),
    ):
        with _naming(function):
            check(backend, problem)
    with _naming("exact_scores"):
        _check_exact_scores(backend, problem, score_error)
    _check_methods(backend, problem)


@contextmanager
def _naming(function: str) -> Iterator[None]:
    """Say which function an AssertionError is about."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{function}: {error}") from None


def _host(backend: Backend, array: Any) -> Array:
    return np.asarray(backend.to_host(array))


def _require_same(backend: Backend, found: Any, expected: Array, kv_range: Array, what: str, axis: int = -2) -> None:
    """AssertionError unless the valid slots along `axis` are the same numbers, of the same dtype."""
    host = _host(backend, found)
    if host.dtype != expected.dtype:
        raise AssertionError(f"{what} is of {host.dtype}, expected is {expected.dtype}.")
    for row, (start, length) in enumerate(kv_range):
        mine, theirs = (np.moveaxis(array[row], axis, 0)[start : start + length] for array in (host, expected))
        if not np.array_equal(mine, theirs):
            raise AssertionError(f"{what} of sequence {row} differs from the reference's.")


def _check_transfer(backend: Backend, problem: Problem) -> None:
    back = _host(backend, backend.to_device(problem.query))
    if back.dtype != problem.query.dtype or not np.array_equal(back, problem.query):
        raise AssertionError("a query that went to_device and back is another one.")


def _check_store(backend: Backend, problem: Problem) -> None:
    slots = problem.keys.shape[2]
    for capacity in (None, slots + _ADDED):
        for array in (problem.keys, np.asfortranarray(problem.values)):
            given = backend.to_device(array.copy(order="K"))
            stored = backend.store(given, capacity)
            _require_same(backend, stored, array, problem.spans, f"what is stored with capacity={capacity}")
            given[...] = 0
            _require_same(
                backend, stored, array, problem.spans, "what is stored after the caller's own array was changed"
            )


def _added(problem: Problem) -> tuple[Array, Array]:
    """Keys and values of the tokens that the checks append, [B, Hkv, 3, D] each."""
    draw = Key.from_seed(0).generator()
    added: list[Array] = []
    for array in (problem.keys, problem.values):
        shape = (*array.shape[:2], _ADDED, array.shape[3])
        added.append(draw.standard_normal(shape).astype(array.dtype))
    return added[0], added[1]


def _check_write(backend: Backend, problem: Problem) -> None:
    """Three tokens behind each sequence, with and without room, in keys and in an index with tokens last."""
    truth, put, (new, _) = NumpyBackend(), backend.to_device, _added(problem)
    slots, ends = problem.keys.shape[2], problem.spans.sum(axis=1)
    grown = problem.spans + np.array([0, _ADDED])
    for axis, old, more in ((-2, problem.keys, new), (-1, problem.keys[..., 0], new[..., 0])):
        expected = truth.write(old.copy(), more, ends, None, axis)
        for capacity in (None, slots + _ADDED):
            held = backend.store(put(old), capacity) if axis == -2 else put(old.copy())
            written = backend.write(held, put(more), ends, capacity, axis)
            what = f"the array with tokens written along axis {axis} with capacity={capacity}"
            _require_same(backend, written, expected, grown, what, axis)
            again = backend.write(written, put(more), ends + _ADDED, None, axis)
            twice = truth.write(expected.copy(), more, ends + _ADDED, None, axis)
            _require_same(backend, again, twice, grown + np.array([0, _ADDED]), f"{what}, written twice", axis)


def _check_take(backend: Backend, problem: Problem) -> None:
    batch = len(problem.keys)
    for order in (np.arange(batch)[::-1], np.array([1, 0, 1]) % batch, np.array([batch - 1])):
        taken = backend.take(backend.to_device(problem.keys), order)
        if len(_host(backend, taken)) != len(order):
            raise AssertionError(f"sequences {order.tolist()} were asked for and {len(taken)} came.")
        _require_same(
            backend, taken, problem.keys[order], problem.spans[order], f"a cache of sequences {order.tolist()}"
        )


def _exact(problem: Problem) -> Array:
    return NumpyBackend().exact_scores(problem.query, _reference_rows(problem), _SCALE)


def _reference_rows(problem: Problem) -> DenseRows:
    return DenseRows(problem.keys.copy(), problem.values.copy(), problem.spans, NumpyBackend())


def _backend_rows(backend: Backend, problem: Problem) -> DenseRows:
    keys, values = (backend.to_device(array.copy()) for array in (problem.keys, problem.values))
    return DenseRows(keys, values, problem.spans, backend)


def _check_exact_scores(backend: Backend, problem: Problem, score_error: float) -> None:
    found = backend.exact_scores(backend.to_device(problem.query), _backend_rows(backend, problem), _SCALE)
    host = _host(backend, found)
    if host.dtype != np.float32:
        raise AssertionError(f"scores are of {host.dtype}, return float32.")
    assert_scores(host, _exact(problem), score_error)


def _check_select(backend: Backend, problem: Problem) -> None:
    """On the very same scores, those that tie among them."""
    exact, kv_heads = _exact(problem), problem.keys.shape[1]
    for scores, kind in ((exact, "distinct"), (np.round(exact), "tied")):
        for budget in _BUDGETS:
            expected = NumpyBackend().select(scores, problem.spans, budget, kv_heads)
            found = _host(backend, backend.select(backend.to_device(scores), problem.spans, budget, kv_heads))
            if found.dtype != np.int32 or not np.array_equal(found, expected):
                raise AssertionError(f"the selection of {budget} from the same {kind} scores differs.")


def _check_attend(backend: Backend, problem: Problem) -> None:
    """Over the very same slots."""
    rows, put, dtype = _backend_rows(backend, problem), backend.to_device, problem.query.dtype
    for budget in _BUDGETS:
        kept = NumpyBackend().select(_exact(problem), problem.spans, budget, problem.keys.shape[1])
        for sm_scale in (_SCALE, 1.5):
            expected = NumpyBackend().attend(problem.query, _reference_rows(problem), kept, sm_scale)
            found = backend.attend(put(problem.query), rows, put(kept), sm_scale)
            _require_state(backend, found, expected, dtype, f"over the slots of {budget} at sm_scale={sm_scale}")


def _check_average(backend: Backend, problem: Problem) -> None:
    """With the very same weights, of which some are zero."""
    logs = _exact(problem).astype(np.float64)
    few = np.where(logs < np.median(logs[np.isfinite(logs)]), -np.inf, logs - 3)
    for weights in (logs, few):
        expected = NumpyBackend().average(weights, _reference_rows(problem))
        found = backend.average(backend.to_device(weights), _backend_rows(backend, problem))
        _require_state(backend, found, expected, problem.query.dtype, "of the same log weights")


def _require_state(backend: Backend, found: Any, expected: Any, dtype: Any, what: str) -> None:
    """AssertionError unless value and lse are those expected."""
    for name, left, right in zip(("value", "lse"), found, expected, strict=True):
        try:
            assert_close(_host(backend, left), _host(backend, right), dtype)
        except AssertionError as error:
            raise AssertionError(f"the {name} {what} differs from the reference's: {error}") from None


def _check_methods(backend: Backend, problem: Problem) -> None:
    """Dense and OracleTopK over a cache as prepared, appended to, truncated and taken from."""
    methods: tuple[tuple[Method, Budget | None], ...] = (
        (Dense(), None),
        *((OracleTopK(), budget) for budget in _BUDGETS),
    )
    for method, budget in methods:
        for capacity in (None, problem.keys.shape[2] + _ADDED):
            runs = (_steps(engine, method, budget, problem, capacity) for engine in (backend, NumpyBackend()))
            for (what, found), (_, expected) in zip(*runs, strict=True):
                about = f"of {method} with {budget} and capacity={capacity} over a cache {what}"
                if not np.array_equal(_host(backend, found.indices), expected.indices):
                    raise AssertionError(f"{type(method).__name__}: the selection {about} differs.")
                with _naming(type(method).__name__):
                    pair = (found.value, found.lse), (expected.value, expected.lse)
                    _require_state(backend, *pair, problem.query.dtype, about)


def _steps(
    backend: Backend, method: Method, budget: Budget | None, problem: Problem, capacity: int | None
) -> Iterator[tuple[str, Estimate]]:
    put, batch = backend.to_device, len(problem.keys)

    def step(cache: Cache, order: Any) -> Estimate:
        return method.attend(put(problem.query[order]), cache, budget=budget, sm_scale=_SCALE)

    whole, order = np.arange(batch), np.array([1, 0, 1]) % batch
    keys, values = (put(array.copy()) for array in (problem.keys, problem.values))
    start, length = problem.spans.T
    cache = method.prepare(keys, values, kv_start=start, kv_len=length, capacity=capacity, backend=backend)
    yield "as prepared", step(cache, whole)
    grown = cache.append(*(put(array) for array in _added(problem)))
    yield "appended to", step(grown, whole)
    yield "truncated", step(grown.truncate(np.maximum(1, length // 2)), whole)
    yield "of taken sequences", step(grown.take(order), order)
