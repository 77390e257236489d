"""The public check of SOCKET's operations names every one of them broken, one at a time, in a copy of the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from socket_theory import Key
from socket_theory.core import backend as backends
from socket_theory.core.index import TokenIndex
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.socket_lsh.contract import check_operations
from socket_theory.socket_lsh.operations import FAMILY, NumpyOperations
from socket_theory.testing import random_problem

REFERENCE = NumpyOperations()
PROBLEM = random_problem(Key.from_seed(7), num_qo_heads=6, num_kv_heads=2, slots=70, num_tables=5, num_planes=6)


def spread_over_kv(scores: Any) -> Any:
    """Rows of another KV head in the place of each."""
    return np.roll(scores, 3, axis=1)


def half(array: Any) -> Any:
    return array.astype(np.float16).astype(array.dtype)


def fewer(kv_range: Any) -> Any:
    """A token fewer in every sequence that has two."""
    return np.stack([kv_range[:, 0], np.maximum(1, kv_range[:, 1] - 1)], axis=1)


class StaleIndex(TokenIndex):
    """Codes of new tokens are left out."""

    def append(self, new: Any, rows: Any, count: int) -> Any:
        silent = {name: np.zeros_like(array) if name == "codes" else array for name, array in new.arrays.items()}
        return super().append(TokenIndex(silent), rows, count)


class LateIndex(TokenIndex):
    """Tokens are written a slot late."""

    def append(self, new: Any, rows: Any, count: int) -> Any:
        return super().append(new, rows.bind(rows.kv_range + np.array([0, 1]), rows.backend), count)


class ForgetfulIndex(TokenIndex):
    """Norms of new tokens are left out."""

    def append(self, new: Any, rows: Any, count: int) -> Any:
        silent = {name: np.zeros_like(array) if name == "value_norms" else array for name, array in new.arrays.items()}
        return super().append(TokenIndex(silent), rows, count)


class LeftBehind(TokenIndex):
    """Sequences are taken in their first order."""

    def take(self, order: Any, backend: Any) -> Any:
        return super().take(np.arange(len(order)) % 2, backend)


# Name of the fault: the operation, what it gives in its place, from its arguments, and the operation that is named.
BROKEN: dict[str, tuple[str, Callable[..., Any], str]] = {
    "keys are hashed without their centre": (
        "hash_keys",
        lambda k, s, p, c: REFERENCE.hash_keys(k, s, p, None),
        "hash_keys about a centre",
    ),
    "keys are centred in float16": (
        "hash_keys",
        lambda k, s, p, c: REFERENCE.hash_keys(k if c is None else half(half(k) - half(c)[:, :, None]), s, p, None),
        "hash_keys about a centre",
    ),
    "tables change places": (
        "hash_keys",
        lambda k, s, p, c: REFERENCE.hash_keys(k, s, p, c)[:, :, ::-1].copy(),
        "soft_scores of codes from hash_keys",
    ),
    "the newest token is not hashed": (
        "hash_keys",
        lambda k, s, p, c: REFERENCE.hash_keys(k, fewer(s), p, c),
        "soft_scores of codes from hash_keys",
    ),
    "norms of another head": ("value_norms", lambda v, s: REFERENCE.value_norms(v, s)[:, ::-1].copy(), "value_norms"),
    "norms are squared": ("value_norms", lambda v, s: REFERENCE.value_norms(v, s) ** 2, "value_norms"),
    "norms are not rounded": (
        "value_norms",
        lambda v, s: np.linalg.norm(np.nan_to_num(v), axis=-1),
        "value_norms",
    ),
    "means count the padding": ("mean_keys", lambda k, s: np.nan_to_num(k).mean(axis=2), "mean_keys"),
    "means are added up in float16": (
        "mean_keys",
        lambda k, s: np.stack(
            [k[r, :, a : a + n].astype(np.float16).mean(axis=1, dtype=np.float16) for r, (a, n) in enumerate(s)]
        ).astype(k.dtype),
        "mean_keys",
    ),
    "soft scores of another KV head": (
        "soft_scores",
        lambda *a, **k: spread_over_kv(REFERENCE.soft_scores(*a, **k)),
        "soft_scores",
    ),
    "soft scores ignore the temperature": (
        "soft_scores",
        lambda *a, **k: REFERENCE.soft_scores(*a[:-1], 1.0, **k),
        "soft_scores",
    ),
    "soft scores ignore the query map": (
        "soft_scores",
        lambda *a, **k: REFERENCE.soft_scores(*a[:-2], "linear", a[-1], **k),
        "soft_scores",
    ),
    "soft scores of a token fewer": (
        "soft_scores",
        lambda q, c, s, *rest, **k: REFERENCE.soft_scores(q, c, fewer(s), *rest, **k),
        "soft_scores",
    ),
    "soft scores vanish": (
        "soft_scores",
        lambda *a, **_: np.where(np.isfinite(made := REFERENCE.log_soft_scores(*a)), np.exp(made), made).astype("f4"),
        "soft_scores",
    ),
    "rows that are added have scales of their own": (
        "soft_scores",
        lambda *a, **_: REFERENCE.soft_scores(*a),
        "soft_scores of a group that shares its tokens",
    ),
    "log scores in base 2": (
        "log_soft_scores",
        lambda *a: REFERENCE.log_soft_scores(*a) / np.log(2),
        "log_soft_scores",
    ),
    "log scores in float16": ("log_soft_scores", lambda *a: half(REFERENCE.log_soft_scores(*a)), "log_soft_scores"),
    "hard scores are counts": (
        "hard_scores",
        lambda q, c, s, p: REFERENCE.hard_scores(q, c, s, p) * p.num_tables,
        "hard_scores",
    ),
    "scores are divided by norms": (
        "weigh_scores",
        lambda scores, norms, **k: REFERENCE.weigh_scores(scores, 1 / norms, **k),
        "weigh_scores",
    ),
    "padding scores NaN": (
        "weigh_scores",
        lambda scores, norms, **_: scores * np.repeat(norms, 3, axis=1),
        "weigh_scores",
    ),
    "weighed rows that are added have scales of their own": (
        "weigh_scores",
        lambda scores, norms, **_: REFERENCE.weigh_scores(scores, norms),
        "weigh_scores with shared=True",
    ),
    "samples of another head's points": (
        "sample",
        lambda w, v, s, n, p: REFERENCE.sample(w, v, s, n, p[:, ::-1]),
        "value of sample",
    ),
    "samples ignore norms": (
        "sample",
        lambda w, v, s, n, p: REFERENCE.sample(w, v, s, None, p),
        "value of sample with norms",
    ),
    "a sampled slot is the next one": (
        "sample",
        lambda *a: (*(made := REFERENCE.sample(*a))[:2], np.where(made[2] < 0, made[2], made[2] + 1)),
        "kept slots of sample",
    ),
    "the index of new tokens is stale": ("index_type", StaleIndex, "codes of sequence"),
    "the index of new tokens is written a slot late": ("index_type", LateIndex, "codes of sequence"),
    "the norms of new tokens are left out": ("index_type", ForgetfulIndex, "value_norms of sequence"),
    "taken sequences leave the index behind": ("index_type", LeftBehind, "codes of sequence"),
}


class Other(NumpyBackend):
    """A backend whose operations are registered by a test."""

    name = "other"


def test_the_reference_passes() -> None:
    check_operations(NumpyBackend(), PROBLEM)


@pytest.mark.parametrize("fault", BROKEN)
def test_every_broken_operation_is_named(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operation, given, named = BROKEN[fault]
    broken = NumpyOperations()
    setattr(broken, operation, given)
    monkeypatch.setitem(backends._OPERATIONS, (FAMILY, "other"), broken)
    with np.errstate(all="ignore"), pytest.raises(AssertionError, match=f"^{named}.*: .+\\.$"):
        check_operations(Other(), PROBLEM)


@pytest.mark.parametrize(
    "operation",
    [
        "hash_keys",
        "value_norms",
        "mean_keys",
        "soft_scores",
        "log_soft_scores",
        "hard_scores",
        "weigh_scores",
        "sample",
    ],
)
def test_an_operation_that_raises_is_named(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = NumpyOperations()
    setattr(broken, operation, lambda *given, **settings: 1 // 0)
    monkeypatch.setitem(backends._OPERATIONS, (FAMILY, "other"), broken)
    with pytest.raises(AssertionError, match=rf"^{operation}.*: ZeroDivisionError was raised"):
        check_operations(Other(), PROBLEM)


def test_a_backend_without_operations_is_told_which_have_them() -> None:
    with pytest.raises(ValueError, match=r"^backend 'other' has no operations of socket_lsh, and 'numpy'.* have: "):
        check_operations(Other(), PROBLEM)
