"""The public check of a backend sees every operation broken, one at a time, in a copy of the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from socket_theory import Key
from socket_theory.backend_contract import check_backend
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.core.selection import Budget
from socket_theory.testing import assert_close, random_problem

REFERENCE = NumpyBackend()
PROBLEM = random_problem(Key.from_seed(7), num_qo_heads=6, num_kv_heads=2, slots=70, num_tables=5, num_planes=6)


def spread_over_kv(scores: Any) -> Any:
    """Rows of another KV head in the place of each."""
    return np.roll(scores, 3, axis=1)


def earlier_wins(scores: Any, spans: Any, budget: Budget, num_kv_heads: int) -> Any:
    flipped = np.ascontiguousarray(scores[..., ::-1])
    slots = scores.shape[-1]
    back = np.stack([slots - spans.sum(axis=1), spans[:, 1]], axis=1)
    mirrored = Budget(tokens=budget.tokens, fraction=budget.fraction, sink=budget.window, window=budget.sink)
    found = REFERENCE.select(flipped, back, mirrored, num_kv_heads)
    return np.sort(np.where(found < 0, 2**30, slots - 1 - found), axis=-1) % 2**30


def one_more(scores: Any, spans: Any, budget: Budget, num_kv_heads: int) -> Any:
    """Forced tokens are counted twice, so fewer others are kept."""
    if budget.tokens is None or budget.sink == 0:
        return REFERENCE.select(scores, spans, budget, num_kv_heads)
    fewer = Budget(tokens=budget.tokens - 1, sink=budget.sink, window=budget.window)
    return np.pad(REFERENCE.select(scores, spans, fewer, num_kv_heads), ((0, 0), (0, 0), (0, 1)), constant_values=-1)


def per_head(scores: Any, spans: Any, budget: Budget, num_kv_heads: int) -> Any:
    alone = Budget(tokens=budget.tokens, fraction=budget.fraction, sink=budget.sink, window=budget.window)
    return REFERENCE.select(scores, spans, alone, num_kv_heads)


def half(array: Any) -> Any:
    return array.astype(np.float16).astype(array.dtype)


def late_write(old: Any, new: Any, spans: Any, capacity: Any) -> Any:
    return REFERENCE.write_tokens(old, new, spans + np.array([0, 1]), capacity)


def stale_index(old: Any, new: Any, spans: Any, capacity: Any) -> Any:
    written = REFERENCE.write_tokens(old, new, spans, capacity)
    return written | {
        "codes": np.pad(old["codes"], ((0, 0), (0, 0), (0, 0), (0, 3)))[..., : written["codes"].shape[-1]]
    }


def whole_span(spans: Any) -> Any:
    """A token fewer in every sequence that has two."""
    return np.stack([spans[:, 0], np.maximum(1, spans[:, 1] - 1)], axis=1)


# Name of the fault: the operation, and what it gives in its place, from its arguments.
BROKEN: dict[str, tuple[str, Callable[..., Any]]] = {
    "store swaps heads": ("store", lambda a, room: a[:, ::-1].copy()),
    "store rounds to 16 bits": ("store", lambda a, room: half(a)),
    "store keeps the caller's array": ("store", lambda a, room: a),
    "keys are hashed without their centre": ("hash_keys", lambda k, s, p, c: REFERENCE.hash_keys(k, s, p, None)),
    "keys are centred in float16": (
        "hash_keys",
        lambda k, s, p, c: REFERENCE.hash_keys(k if c is None else half(half(k) - half(c)[:, :, None]), s, p, None),
    ),
    "tables change places": ("hash_keys", lambda k, s, p, c: REFERENCE.hash_keys(k, s, p, c)[:, :, ::-1].copy()),
    "the newest token is not hashed": ("hash_keys", lambda k, s, p, c: REFERENCE.hash_keys(k, whole_span(s), p, c)),
    "norms of another head": ("value_norms", lambda v, s: REFERENCE.value_norms(v, s)[:, ::-1].copy()),
    "norms are squared": ("value_norms", lambda v, s: REFERENCE.value_norms(v, s) ** 2),
    "norms are not rounded": ("value_norms", lambda v, s: np.linalg.norm(np.nan_to_num(v), axis=-1)),
    "means count the padding": ("mean_keys", lambda k, s: np.nan_to_num(k).mean(axis=2)),
    "means are added up in float16": (
        "mean_keys",
        lambda k, s: np.stack(
            [k[r, :, a : a + n].astype(np.float16).mean(axis=1, dtype=np.float16) for r, (a, n) in enumerate(s)]
        ).astype(k.dtype),
    ),
    "soft scores of another KV head": ("soft_scores", lambda *a, **k: spread_over_kv(REFERENCE.soft_scores(*a, **k))),
    "soft scores ignore the temperature": ("soft_scores", lambda *a, **k: REFERENCE.soft_scores(*a[:-1], 1.0, **k)),
    "soft scores ignore the query map": (
        "soft_scores",
        lambda *a, **k: REFERENCE.soft_scores(*a[:-2], "linear", a[-1], **k),
    ),
    "soft scores of a token fewer": (
        "soft_scores",
        lambda q, c, s, *rest, **k: REFERENCE.soft_scores(q, c, whole_span(s), *rest, **k),
    ),
    "soft scores vanish": (
        "soft_scores",
        lambda *a, **_: np.where(np.isfinite(made := REFERENCE.log_soft_scores(*a)), np.exp(made), made).astype("f4"),
    ),
    "rows that are added have scales of their own": ("soft_scores", lambda *a, **_: REFERENCE.soft_scores(*a)),
    "log scores in base 2": ("log_soft_scores", lambda *a: REFERENCE.log_soft_scores(*a) / np.log(2)),
    "log scores in float16": ("log_soft_scores", lambda *a: half(REFERENCE.log_soft_scores(*a))),
    "hard scores are counts": ("hard_scores", lambda q, c, s, p: REFERENCE.hard_scores(q, c, s, p) * p.num_tables),
    "exact scores keep their largest": ("exact_scores", lambda *a: REFERENCE.exact_scores(*a) + np.float32(1)),
    "exact scores ignore the scale": ("exact_scores", lambda q, k, s, scale: REFERENCE.exact_scores(q, k, s, 1.0)),
    "scores are divided by norms": (
        "weigh_scores",
        lambda scores, norms, **k: REFERENCE.weigh_scores(scores, 1 / norms, **k),
    ),
    "padding scores NaN": ("weigh_scores", lambda scores, norms, **_: scores * np.repeat(norms, 3, axis=1)),
    "weighed rows that are added have scales of their own": (
        "weigh_scores",
        lambda scores, norms, **_: REFERENCE.weigh_scores(scores, norms),
    ),
    "the earlier token wins a tie": ("select", earlier_wins),
    "forced tokens are counted twice": ("select", one_more),
    "a shared set is not shared": ("select", per_head),
    "selected slots forget the left padding": (
        "select",
        lambda scores, s, b, n: np.where(
            (made := REFERENCE.select(scores, s, b, n)) < 0, made, made - s[:, :1, None].astype(np.int32)
        ),
    ),
    "selected slots are not ascending": (
        "select",
        lambda scores, s, b, n: REFERENCE.select(scores, s, b, n)[..., ::-1].copy(),
    ),
    "attention ignores the scale": ("attend", lambda q, k, v, i, scale: REFERENCE.attend(q, k, v, i, 1.0)),
    "lse in base 2": (
        "attend",
        lambda *a: ((made := REFERENCE.attend(*a))[0], made[1] / np.log(2)),
    ),
    "attention counts the padding as slot 0": (
        "attend",
        lambda q, k, v, i, scale: REFERENCE.attend(q, np.nan_to_num(k), np.nan_to_num(v), np.maximum(i, 0), scale),
    ),
    "a query is scaled in float16": (
        "attend",
        lambda q, k, v, i, scale: REFERENCE.attend(half(q * np.float16(scale)), k, v, i, 1.0),
    ),
    "an average of one token fewer": ("average", lambda w, v, s: REFERENCE.average(w, v, whole_span(s))),
    "an average forgets its lse": (
        "average",
        lambda *a: ((made := REFERENCE.average(*a))[0], np.zeros_like(made[1])),
    ),
    "samples of another head's points": ("sample", lambda w, v, s, n, p: REFERENCE.sample(w, v, s, n, p[:, ::-1])),
    "samples ignore norms": ("sample", lambda w, v, s, n, p: REFERENCE.sample(w, v, s, None, p)),
    "a sampled slot is the next one": (
        "sample",
        lambda *a: (*(made := REFERENCE.sample(*a))[:2], np.where(made[2] < 0, made[2], made[2] + 1)),
    ),
    "tokens are written a slot late": ("write_tokens", late_write),
    "the index of new tokens is stale": ("write_tokens", stale_index),
    "values are written as keys": (
        "write_tokens",
        lambda old, new, s, room: REFERENCE.write_tokens(old, new | {"keys": new["values"]}, s, room),
    ),
    "taken rows are sorted": ("take_rows", lambda arrays, rows: REFERENCE.take_rows(arrays, np.sort(rows))),
    "taken rows leave the index behind": (
        "take_rows",
        lambda arrays, rows: {
            name: array[rows] if name in ("keys", "values") else array[np.arange(len(rows)) % len(array)]
            for name, array in arrays.items()
        },
    ),
}


def test_the_reference_passes() -> None:
    check_backend(REFERENCE, PROBLEM)


@pytest.mark.parametrize("fault", BROKEN)
def test_every_broken_operation_is_seen(fault: str) -> None:
    operation, given = BROKEN[fault]
    broken = NumpyBackend()
    setattr(broken, operation, given)
    with np.errstate(all="ignore"), pytest.raises(AssertionError):
        check_backend(broken, PROBLEM)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_is_close_to_nothing(wrong: float) -> None:
    with pytest.raises(AssertionError, match="relative RMS error"):
        assert_close(np.array([1.0, wrong]), np.array([1.0, 2.0]), "float16")
