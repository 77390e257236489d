"""The contract of a backend: `check_backend(backend, problem)` runs every operation against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.backend import Backend
from socket_theory.core.hashing import QueryMap, SignHash
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.core.rng import Key
from socket_theory.core.selection import Budget
from socket_theory.testing import TOLERANCES, Problem, assert_close, relative_rms

Array = NDArray[Any]


def check_backend(backend: Backend, problem: Problem, score_error: float = 1e-4) -> None:
    """AssertionError unless every operation of the Protocol agrees with the reference.

    `score_error` is the RMS error that scores may have, in standard deviations of the scores over tokens. Slots that
    the backend pads an index with are ignored.
    """
    truth = NumpyBackend()
    spans, planes, name = problem.spans, problem.planes, problem.query.dtype
    query, keys, values = (backend.to_device(a) for a in (problem.query, problem.keys, problem.values))
    slots = problem.keys.shape[2]

    def on_host(array: Any) -> Array:
        return np.asarray(backend.to_host(array))

    codes = truth.hash_keys(problem.keys, spans, planes, None)
    norms = truth.value_norms(problem.values, spans)
    index = backend.hash_keys(keys, spans, planes, None)
    assert_close(on_host(backend.value_norms(values, spans))[..., :slots], norms, name)
    assert_close(on_host(backend.mean_keys(keys, spans)), truth.mean_keys(problem.keys, spans), name)
    settings: tuple[tuple[QueryMap, float], ...] = (("tanh_scaled", 0.4), ("tanh", 0.05), ("linear", 3.0))
    asked: list[tuple[Any, ...]] = [(scores, *at) for at in settings for scores in ("soft_scores", "log_soft_scores")]
    for operation, *at in [*asked, ("hard_scores",)]:
        expected = getattr(truth, operation)(problem.query, codes, spans, planes, *at)
        found = getattr(backend, operation)(query, index, spans, planes, *at)
        _assert_scores(on_host(found)[..., :slots], expected, score_error)
    # Heads whose weights underflow beside those whose do not, and then alone: rows to be added are on one scale.
    cold = problem.query.copy()
    cold[:, 1::2] *= 1000
    for given in (cold, 1000 * problem.query):
        expected = truth.soft_scores(given, codes, spans, planes, "linear", 0.1, shared=True)
        found = backend.soft_scores(backend.to_device(given), index, spans, planes, "linear", 0.1, shared=True)
        _assert_scores(on_host(found)[..., :slots], expected, score_error)
    scores = truth.exact_scores(problem.query, problem.keys, spans, 0.25)
    _assert_scores(on_host(backend.exact_scores(query, keys, spans, 0.25)), scores, score_error)
    for budget in (Budget(tokens=9, sink=2, window=3), Budget(fraction=0.3, group="shared"), Budget(tokens=10**6)):
        kept = truth.select(scores, spans, budget, problem.keys.shape[1])
        found = backend.select(backend.to_device(scores), spans, budget, problem.keys.shape[1])
        if not np.array_equal(on_host(found), kept):
            raise AssertionError(f"the selection of {budget} differs on identical scores.")
        value, lse = truth.attend(problem.query, problem.keys, problem.values, kept, 0.25)
        got = backend.attend(query, keys, values, backend.to_device(kept), 0.25)
        assert_close(on_host(got[0]), value, name)
        assert_close(on_host(got[1]), lse, name)

    _check_weights(backend, problem, norms)
    _check_centre_and_depth(backend, problem, score_error)
    _check_cache(backend, problem, score_error)


def _check_centre_and_depth(backend: Backend, problem: Problem, score_error: float) -> None:
    """Keys far from the origin hashed about their mean, and rows whose soft scores all vanish."""
    truth, spans, shifted = NumpyBackend(), problem.spans, problem.keys + problem.keys.dtype.type(8)
    center = truth.mean_keys(shifted, spans)
    deep = SignHash(2, 16, problem.planes.head_dim).draw(Key.from_seed(0))
    for planes, offset, *rest in ((problem.planes, center, "tanh_scaled", 0.4), (deep, None, "linear", 1e-3)):
        at: tuple[Any, ...] = (spans, planes, *rest)
        codes, given = truth.hash_keys(shifted, spans, planes, offset), backend.to_device(shifted)
        index = backend.hash_keys(given, spans, planes, None if offset is None else backend.to_device(offset))
        found = np.asarray(backend.to_host(backend.soft_scores(backend.to_device(problem.query), index, *at)))
        _assert_scores(found[..., : shifted.shape[2]], truth.soft_scores(problem.query, codes, *at), score_error)


def _check_cache(backend: Backend, problem: Problem, score_error: float) -> None:
    """Storing, then writing three tokens behind each sequence, then reordering, with the index beside the keys."""
    spans, planes, slots = problem.spans, problem.planes, problem.keys.shape[2]
    shape = (2, *problem.keys.shape[:2], 3, problem.keys.shape[3])
    added = Key.from_seed(0).generator().standard_normal(shape).astype(problem.keys.dtype)
    whole, rows = np.tile(np.array([0, 3]), (len(spans), 1)), np.array([1, 0, 1]) % len(spans)
    caches, engines = [], [NumpyBackend(), backend]
    for engine in engines:
        parts = []
        for (keys, values), held in (((problem.keys, problem.values), spans), (added, whole)):
            given = [engine.to_device(array) for array in (keys, values)]
            stored = [engine.store(array, slots + 3 if held is spans else None) for array in given]
            if any(np.shares_memory(engine.to_host(a), engine.to_host(b)) for a, b in zip(given, stored, strict=True)):
                raise AssertionError("store gives the caller's own memory, not a copy.")
            index = engine.hash_keys(stored[0], held, planes, None), engine.value_norms(stored[1], held)
            parts.append(dict(zip(("keys", "values", "codes", "value_norms"), (*stored, *index), strict=True)))
        taken = engine.take_rows(engine.write_tokens(parts[0], parts[1], spans, slots + 3), rows)
        query, grown = engine.to_device(problem.query[rows]), (spans + np.array([0, 3]))[rows]
        taken["codes"] = engine.log_soft_scores(query, taken["codes"], grown, planes, "tanh_scaled", 0.4)
        caches.append({name: np.asarray(engine.to_host(array)) for name, array in taken.items()})
    for row, (start, length) in enumerate(grown):
        valid = slice(start, start + length)
        expected, found = ({name: array[row][:, valid] for name, array in cache.items()} for cache in caches)
        _assert_scores(found.pop("codes"), expected.pop("codes"), score_error)
        for name, array in found.items():
            if not relative_rms(array, expected[name]) <= (name == "value_norms") * TOLERANCES["bfloat16"]:
                raise AssertionError(f"the {name} of sequence {row} are not those stored, written and taken.")


def _check_weights(backend: Backend, problem: Problem, norms: Array) -> None:
    """Weighing, averaging and sampling, on identical log weights and norms."""
    truth, put, spans, name = NumpyBackend(), backend.to_device, problem.spans, problem.query.dtype
    logs = truth.exact_scores(problem.query, problem.keys, spans, 0.25).astype(np.float64)
    found = np.asarray(backend.to_host(backend.weigh_scores(put(logs.astype(np.float32)), put(norms))))
    _assert_scores(found, truth.weigh_scores(logs.astype(np.float32), norms), 1e-6)
    weak, short = (np.exp(logs) * 1e-24).astype(np.float32), norms * np.float32(1e-20)
    weak[:, 1::2] *= np.float32(1e-6)
    for shared in (False, True):
        found = np.asarray(backend.to_host(backend.weigh_scores(put(weak), put(short), shared=shared)))
        _assert_scores(found, truth.weigh_scores(weak, short, shared=shared), 1e-6)
    points = Key.from_seed(0).generator().random((*logs.shape[:2], 20))
    averages = truth.average(logs, problem.values, spans), backend.average(put(logs), put(problem.values), spans)
    pairs: list[tuple[tuple[Any, ...], tuple[Any, ...]]] = [averages]
    for given in (None, norms):
        drawn = truth.sample(logs, problem.values, spans, given, points)
        host_norms = None if given is None else put(given)
        pairs.append((drawn, backend.sample(put(logs), put(problem.values), spans, host_norms, points)))
    for expected, got in pairs:
        for left, right in zip(got, expected, strict=True):
            assert_close(np.asarray(backend.to_host(left)), right, name)


def _assert_scores(actual: Array, expected: Array, allowed: float) -> None:
    """Equal -inf pattern, and an RMS error within `allowed` standard deviations of the scores over tokens."""
    valid = np.isfinite(expected)
    if not np.array_equal(valid, np.isfinite(actual)) or (actual[~valid] != -np.inf).any():
        raise AssertionError("scores are finite on other slots than the reference's.")
    spread = max(float(np.std(expected[valid], dtype=np.float64)), 1e-6)
    error = float(np.sqrt(np.mean((actual[valid].astype(np.float64) - expected[valid]) ** 2)))
    if not error <= allowed * spread:
        raise AssertionError(f"the score error is {error / spread:.3g} standard deviations, allowed is {allowed:g}.")
