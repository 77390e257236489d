"""The contract of SOCKET's operations: `check_operations(backend, problem)` runs each against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.backend import Backend, operations
from socket_theory.core.hashing import QueryMap, SignHash
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.core.rng import Key
from socket_theory.core.rows import DenseRows
from socket_theory.socket_lsh.operations import FAMILY, NumpyOperations
from socket_theory.testing import Problem, assert_close, assert_scores
from socket_theory.testing.faults import naming, on_host

Array = NDArray[Any]


def check_operations(backend: Backend, problem: Problem, score_error: float = 1e-4) -> None:
    """AssertionError unless SOCKET's operations that are registered for a backend agree with the reference.

    The sentence names the operation and what differs. `score_error` is the RMS error that scores may have, in standard
    deviations of the scores over tokens. Slots that the backend pads an index with are ignored.
    """
    for check in (_check_index, _check_scores, _check_depth, _check_centre, _check_grown_index):
        check(backend, problem, score_error)
    _check_weighing(backend, problem)
    _check_samples(backend, problem)


def _host(backend: Backend, array: Any, slots: int | None = None) -> Array:
    found = on_host(backend, array)
    return found if slots is None else found[..., :slots]


def _check_index(backend: Backend, problem: Problem, score_error: float) -> None:
    """Norms and means; codes are in each backend's packing, and seen by the scores made of them."""
    own, truth, put, spans = operations(FAMILY, backend), NumpyOperations(), backend.to_device, problem.spans
    with naming("value_norms"):
        norms = _host(backend, own.value_norms(put(problem.values), spans), problem.keys.shape[2])
        assert_close(norms, truth.value_norms(problem.values, spans), problem.query.dtype)
    with naming("mean_keys"):
        means = _host(backend, own.mean_keys(put(problem.keys), spans))
        assert_close(means, truth.mean_keys(problem.keys, spans), problem.query.dtype)


def _check_scores(backend: Backend, problem: Problem, score_error: float) -> None:
    own, truth, put = operations(FAMILY, backend), NumpyOperations(), backend.to_device
    spans, planes, slots = problem.spans, problem.planes, problem.keys.shape[2]
    codes = truth.hash_keys(problem.keys, spans, planes, None)
    with naming("hash_keys"):
        index = own.hash_keys(put(problem.keys), spans, planes, None)
    settings: tuple[tuple[QueryMap, float], ...] = (("tanh_scaled", 0.4), ("tanh", 0.05), ("linear", 3.0))
    asked: list[tuple[Any, ...]] = [(scores, *at) for at in settings for scores in ("soft_scores", "log_soft_scores")]
    for operation, *at in [*asked, ("hard_scores",)]:
        expected = getattr(truth, operation)(problem.query, codes, spans, planes, *at)
        with naming(f"{operation} of codes from hash_keys, with {at}"):
            found = getattr(own, operation)(put(problem.query), index, spans, planes, *at)
            assert_scores(_host(backend, found, slots), expected, score_error)
    # Heads whose weights underflow beside those whose do not, and then alone: rows to be added are on one scale.
    cold = problem.query.copy()
    cold[:, 1::2] *= 1000
    for given in (cold, 1000 * problem.query):
        expected = truth.soft_scores(given, codes, spans, planes, "linear", 0.1, shared=True)
        with naming("soft_scores of a group that shares its tokens"):
            found = own.soft_scores(put(given), index, spans, planes, "linear", 0.1, shared=True)
            assert_scores(_host(backend, found, slots), expected, score_error)


def _check_depth(backend: Backend, problem: Problem, score_error: float) -> None:
    """Rows whose soft scores all vanish."""
    planes = SignHash(2, 16, problem.planes.head_dim).draw(Key.from_seed(0))
    with naming("soft_scores that underflow"):
        _compare_soft_scores(backend, problem, (planes, None, "linear", 1e-3), score_error)


def _check_centre(backend: Backend, problem: Problem, score_error: float) -> None:
    """Keys far from the origin, hashed about their mean."""
    center = NumpyOperations().mean_keys(_shifted(problem), problem.spans)
    with naming("hash_keys about a centre"):
        _compare_soft_scores(backend, problem, (problem.planes, center, "tanh_scaled", 0.4), score_error)


def _shifted(problem: Problem) -> Array:
    return np.asarray(problem.keys + problem.keys.dtype.type(8))


def _compare_soft_scores(backend: Backend, problem: Problem, at: tuple[Any, ...], score_error: float) -> None:
    own, truth, put, spans = operations(FAMILY, backend), NumpyOperations(), backend.to_device, problem.spans
    planes, center, *rest = at
    codes = truth.hash_keys(_shifted(problem), spans, planes, center)
    index = own.hash_keys(put(_shifted(problem)), spans, planes, None if center is None else put(center))
    found = own.soft_scores(put(problem.query), index, spans, planes, *rest)
    expected = truth.soft_scores(problem.query, codes, spans, planes, *rest)
    assert_scores(_host(backend, found, problem.keys.shape[2]), expected, score_error)


def _check_grown_index(backend: Backend, problem: Problem, score_error: float) -> None:
    """Codes and norms with three tokens written behind each sequence's, then of sequences taken in another order."""
    shape = (2, *problem.keys.shape[:2], 3, problem.keys.shape[3])
    added = Key.from_seed(0).generator().standard_normal(shape).astype(problem.keys.dtype)
    order = np.array([1, 0, 1]) % len(problem.spans)
    grown = (problem.spans + np.array([0, 3]))[order]
    codes, norms = [], []
    for engine in (NumpyBackend(), backend):
        own = operations(FAMILY, engine)
        with naming("an index written and taken"):
            index = _grown_index(engine, own, problem, added).take(order, engine)
            query = engine.to_device(problem.query[order])
            scored = own.log_soft_scores(query, index.arrays["codes"], grown, problem.planes, "tanh_scaled", 0.4)
            codes.append(_host(engine, scored, problem.keys.shape[2] + 3))
            norms.append(_host(engine, index.arrays["value_norms"]))
    for row, (start, length) in enumerate(grown):
        valid = slice(start, start + length)
        with naming(f"codes of sequence {row} of an index written and taken"):
            assert_scores(codes[1][row][:, valid], codes[0][row][:, valid], score_error)
        with naming(f"value_norms of sequence {row} of an index written and taken"):
            assert_close(norms[1][row][:, valid], norms[0][row][:, valid], "bfloat16")


def _grown_index(backend: Backend, own: Any, problem: Problem, added: Array) -> Any:
    whole, slots = np.tile(np.array([0, 3]), (len(problem.spans), 1)), problem.keys.shape[2]
    parts = []
    for (keys, values), kv_range in (((problem.keys, problem.values), problem.spans), (added, whole)):
        given = DenseRows(backend.to_device(keys.copy()), backend.to_device(values.copy()), kv_range, backend)
        rows = given.stored(slots + 3 if kv_range is problem.spans else None)
        made = own.hash_keys(rows.keys, kv_range, problem.planes, None), own.value_norms(rows.values, kv_range)
        parts.append((rows, own.index_type(dict(zip(("codes", "value_norms"), made, strict=True)))))
    (rows, index), (_, new) = parts
    return index.append(new, rows, added.shape[-2])


def _logits(problem: Problem) -> Array:
    rows = DenseRows(problem.keys.copy(), problem.values.copy(), problem.spans, NumpyBackend())
    return NumpyBackend().exact_scores(problem.query, rows, 0.25).astype(np.float64)


def _check_weighing(backend: Backend, problem: Problem) -> None:
    """On identical scores and norms, those whose products underflow among them."""
    own, truth, put, logs = operations(FAMILY, backend), NumpyOperations(), backend.to_device, _logits(problem)
    norms = truth.value_norms(problem.values, problem.spans)
    weak, short = (np.exp(logs) * 1e-24).astype(np.float32), norms * np.float32(1e-20)
    weak[:, 1::2] *= np.float32(1e-6)
    plain = logs.astype(np.float32), norms
    for (scores, lengths), shared in ((plain, False), ((weak, short), False), ((weak, short), True)):
        with naming(f"weigh_scores with shared={shared}"):
            found = _host(backend, own.weigh_scores(put(scores), put(lengths), shared=shared))
            assert_scores(found, truth.weigh_scores(scores, lengths, shared=shared), 1e-6)


def _check_samples(backend: Backend, problem: Problem) -> None:
    """On identical log weights, norms and uniforms."""
    own, truth, put, logs = operations(FAMILY, backend), NumpyOperations(), backend.to_device, _logits(problem)
    points = Key.from_seed(0).generator().random((*logs.shape[:2], 20))
    for norms in (None, truth.value_norms(problem.values, problem.spans)):
        expected = truth.sample(logs, problem.values, problem.spans, norms, points)
        given = None if norms is None else put(norms)
        about = f"sample {'without' if norms is None else 'with'} norms"
        with naming(about):
            value, lse, kept = own.sample(put(logs), put(problem.values), problem.spans, given, points)
        for name, left, right in zip(("value", "lse", "kept slots"), (value, lse, kept), expected, strict=True):
            with naming(f"{name} of {about}"):
                assert_close(_host(backend, left), right, problem.query.dtype)
