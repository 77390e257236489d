"""The public check of a backend: a third party's passes it, and every function broken, one at a time, is named."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest

from socket_theory import Budget, Key
from socket_theory.core.backend import Backend
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.core.rows import DenseRows
from socket_theory.testing import assert_close, check_backend, random_problem

REFERENCE = NumpyBackend()
PROBLEM = random_problem(Key.from_seed(7), num_qo_heads=6, num_kv_heads=2, slots=70, num_tables=5, num_planes=6)


class PlainBackend:
    """All that a third party writes: whole arrays at a time, invalid slots masked."""

    name, slot_block = "plain", 1

    def store(self, array, capacity):
        return np.array(array, order="C")

    def to_host(self, array):
        return np.asarray(array)

    def to_device(self, array):
        return np.asarray(array)

    def write(self, array, new, ends, capacity, axis):
        slots = max(array.shape[axis], int(max(ends)) + new.shape[axis])
        longer = np.zeros((slots, *np.moveaxis(array, axis, 0).shape[1:]), array.dtype)
        longer[: array.shape[axis]] = np.moveaxis(array, axis, 0)
        for row, end in enumerate(ends):
            longer[end : end + new.shape[axis], row] = np.moveaxis(new, axis, 0)[:, row]
        return np.ascontiguousarray(np.moveaxis(longer, 0, axis))

    def take(self, array, order):
        return array[order]

    def exact_scores(self, query, rows, sm_scale):
        logits = self._logits(query, rows, sm_scale)
        return (logits - logits.max(-1, keepdims=True)).astype(np.float32)

    def select(self, scores, kv_range, budget, num_kv_heads):
        group, kept = scores.shape[1] // num_kv_heads, {}
        for row, head in np.ndindex(scores.shape[:2]):
            start, length = kv_range[row]
            mine = slice(head // group * group, head // group * group + group) if budget.per == "kv_head" else [head]
            total = scores[row, mine, start : start + length].sum(0)
            total[: budget.sink] = total[max(0, length - budget.window) :] = np.inf
            best = np.argsort(total, kind="stable")[length - budget.kept(int(length)) :]
            kept[row, head] = start + np.sort(best)
        longest = max(map(len, kept.values()))
        padded = [np.pad(slots, (0, longest - len(slots)), constant_values=-1) for slots in kept.values()]
        return np.array(padded, np.int32).reshape(*scores.shape[:2], longest)

    def attend(self, query, rows, indices, sm_scale):
        listed = np.zeros((*indices.shape[:2], rows.shape[2] + 1), bool)
        np.put_along_axis(listed, indices.astype(int), True, -1)
        return self.average(np.where(listed[..., :-1], self._logits(query, rows, sm_scale), -np.inf), rows)

    def average(self, log_weights, rows):
        logs = np.where(self._valid(rows), log_weights, -np.inf)
        top = logs.max(-1, keepdims=True)
        weights = np.exp(logs - top)
        total = weights.sum(-1, keepdims=True)
        values = np.nan_to_num(rows.values.astype(float)).repeat(logs.shape[1] // rows.shape[1], 1)
        return ((weights / total)[:, :, None] @ values)[:, :, 0], (top + np.log(total))[..., 0]

    def _logits(self, query, rows, sm_scale):
        keys = rows.keys.astype(float).repeat(query.shape[1] // rows.shape[1], 1)
        return np.where(self._valid(rows), sm_scale * (keys @ query[..., None])[..., 0], -np.inf)

    def _valid(self, rows):
        slots, (start, length) = np.arange(rows.shape[2]), rows.kv_range.T[..., None, None]
        return (slots >= start) & (slots < start + length)


PLAIN = PlainBackend()


def with_range(rows: DenseRows, kv_range: Any) -> DenseRows:
    return rows.bind(kv_range, rows.backend)


def earlier_wins(scores: Any, kv_range: Any, budget: Budget, num_kv_heads: int) -> Any:
    flipped = np.ascontiguousarray(scores[..., ::-1])
    slots = scores.shape[-1]
    back = np.stack([slots - kv_range.sum(axis=1), kv_range[:, 1]], axis=1)
    mirrored = Budget(
        tokens=budget.tokens, fraction=budget.fraction, sink=budget.window, window=budget.sink, per=budget.per
    )
    found = PLAIN.select(flipped, back, mirrored, num_kv_heads)
    made = np.sort(np.where(found < 0, 2**30, slots - 1 - found), axis=-1)
    return np.where(made == 2**30, -1, made).astype(np.int32)


def one_more(scores: Any, kv_range: Any, budget: Budget, num_kv_heads: int) -> Any:
    """Forced tokens are counted twice, so fewer others are kept."""
    if budget.tokens is None or budget.sink == 0:
        return PLAIN.select(scores, kv_range, budget, num_kv_heads)
    fewer = Budget(tokens=budget.tokens - 1, sink=budget.sink, window=budget.window)
    return np.pad(PLAIN.select(scores, kv_range, fewer, num_kv_heads), ((0, 0), (0, 0), (0, 1)), constant_values=-1)


def per_head(scores: Any, kv_range: Any, budget: Budget, num_kv_heads: int) -> Any:
    alone = Budget(tokens=budget.tokens, fraction=budget.fraction, sink=budget.sink, window=budget.window)
    return PLAIN.select(scores, kv_range, alone, num_kv_heads)


def half(array: Any) -> Any:
    return array.astype(np.float16).astype(array.dtype)


def fewer(kv_range: Any) -> Any:
    """A token fewer in every sequence that has two."""
    return np.stack([kv_range[:, 0], np.maximum(1, kv_range[:, 1] - 1)], axis=1)


def padding_as_zeros(rows: DenseRows) -> DenseRows:
    """Rows whose padding holds zeros and counts."""
    whole = np.tile(np.array([0, rows.shape[2]]), (rows.shape[0], 1))
    return DenseRows(np.nan_to_num(rows.keys), np.nan_to_num(rows.values), whole, rows.backend)


def older_changed(array: Any, new: Any, ends: Any, room: Any, axis: int) -> Any:
    written = PLAIN.write(array, new, ends, room, axis)
    array[...] = 0
    return written


def caches_changed(array: Any, new: Any, ends: Any, room: Any, axis: int) -> Any:
    """What is written to changes where a cache holds it, which keeps its arrays from being written."""
    written = PLAIN.write(array, new, ends, room, axis)
    if not array.flags.writeable:
        array.setflags(write=True)
        array[...] = 1
    return written


def heads_outside(array: Any) -> Any:
    """The same numbers, with sequences beside each other in memory."""
    return np.array(array.swapaxes(0, 1), order="C").swapaxes(0, 1)


def raising(*arguments: Any) -> Any:
    return 1 // 0


def failing(*arguments: Any) -> Any:
    raise AssertionError


# Name of the fault: the function, and what it gives in its place, from its arguments.
BROKEN: dict[str, tuple[str, Callable[..., Any]]] = {
    "a query is rounded on its way": ("to_host", lambda a: half(a) if a.dtype.kind == "f" else a),
    "store swaps heads": ("store", lambda a, room: a[:, ::-1].copy()),
    "store rounds to 16 bits": ("store", lambda a, room: half(a)),
    "store keeps the caller's array": ("store", lambda a, room: a),
    "store keeps it where there is room": ("store", lambda a, room: a if room else a.copy()),
    "store widens": ("store", lambda a, room: a.astype(np.float64)),
    "store gives columns first": ("store", lambda a, room: np.array(a, order="F")),
    "store gives columns first where there is room": ("store", lambda a, room: np.array(a, order="F" if room else "C")),
    "store gives sequences beside each other": ("store", lambda a, room: heads_outside(a)),
    "store is a slot short": ("store", lambda a, room: a[:, :, :-1].copy()),
    "store drops a head": ("store", lambda a, room: a[:, :1].copy()),
    "store gives one head": ("store", lambda a, room: a[0, 0].copy()),
    "an older array is changed": ("write", older_changed),
    "tokens are written a slot late": ("write", lambda a, new, e, room, axis: PLAIN.write(a, new, e + 1, room, axis)),
    "tokens are written behind the longest sequence": (
        "write",
        lambda a, new, e, room, axis: PLAIN.write(a, new, np.full_like(e, e.max()), room, axis),
    ),
    "an index is left as it was": (
        "write",
        lambda a, new, e, room, axis: PLAIN.write(a, new * (axis == -2), e, room, axis),
    ),
    "the first of the new tokens is written only": (
        "write",
        lambda a, new, e, room, axis: PLAIN.write(a, np.repeat(new.take([0], axis), 3, axis), e, room, axis),
    ),
    "taken sequences are sorted": ("take", lambda a, order: a[np.sort(order)]),
    "taken sequences are the first": ("take", lambda a, order: a[: len(order)]),
    "a slot is not taken": ("take", lambda a, order: a[order][:, :, :-1]),
    "a sequence is not repeated": ("take", lambda a, order: a[np.unique(order)]),
    "exact scores keep their largest": ("exact_scores", lambda *a: PLAIN.exact_scores(*a) + np.float32(1)),
    "exact scores ignore the scale": ("exact_scores", lambda q, rows, scale: PLAIN.exact_scores(q, rows, 1.0)),
    "exact scores are in float64": ("exact_scores", lambda *a: PLAIN.exact_scores(*a).astype(float)),
    "exact scores of a slot fewer": ("exact_scores", lambda *a: PLAIN.exact_scores(*a)[..., :-1]),
    "exact scores of a token fewer": (
        "exact_scores",
        lambda q, rows, scale: PLAIN.exact_scores(q, with_range(rows, fewer(rows.kv_range)), scale),
    ),
    "exact scores of another KV head": ("exact_scores", lambda *a: np.roll(PLAIN.exact_scores(*a), 3, axis=1)),
    "the earlier token wins a tie": ("select", earlier_wins),
    "forced tokens are counted twice": ("select", one_more),
    "a shared set is not shared": ("select", per_head),
    "selected slots forget the left padding": (
        "select",
        lambda scores, kv_range, b, n: np.where(
            (made := PLAIN.select(scores, kv_range, b, n)) < 0, made, made - kv_range[:, :1, None].astype(np.int32)
        ),
    ),
    "selected slots are not ascending": (
        "select",
        lambda *a: PLAIN.select(*a)[..., ::-1].copy(),
    ),
    "attention ignores the scale": ("attend", lambda q, rows, i, scale: PLAIN.attend(q, rows, i, 1.0)),
    "lse in base 2": ("attend", lambda *a: ((made := PLAIN.attend(*a))[0], made[1] / np.log(2))),
    "attention counts the padding as slot 0": (
        "attend",
        lambda q, rows, i, scale: PLAIN.attend(q, padding_as_zeros(rows), np.maximum(i, 0), scale),
    ),
    "a query is scaled in float16": (
        "attend",
        lambda q, rows, i, scale: PLAIN.attend(half(q * np.float16(scale)), rows, i, 1.0),
    ),
    "attention without its lse": ("attend", lambda *a: (PLAIN.attend(*a)[0],)),
    "attention is an array": ("attend", lambda *a: PLAIN.attend(*a)[0]),
    "attention with an lse of None": ("attend", lambda *a: (PLAIN.attend(*a)[0], None)),
    "an average with a third": ("average", lambda *a: (*PLAIN.average(*a), None)),
    "an average of one token fewer": (
        "average",
        lambda logs, rows: PLAIN.average(logs, with_range(rows, fewer(rows.kv_range))),
    ),
    "an average of the padding, too": (
        "average",
        lambda logs, rows: PLAIN.average(np.where(np.isfinite(logs), logs, 0), padding_as_zeros(rows)),
    ),
    "an average forgets its lse": (
        "average",
        lambda *a: ((made := PLAIN.average(*a))[0], np.zeros_like(made[1])),
    ),
}


FUNCTIONS = ("to_device", "to_host", "store", "write", "take", "exact_scores", "select", "attend", "average")


@pytest.mark.parametrize("engine", [REFERENCE, PLAIN], ids=lambda engine: engine.name)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_qo_heads": 6, "slots": 70},
        {"batch": 1, "slots": 5},
        {"batch": 5, "num_kv_heads": 4, "head_dim": 7},
        {"dtype": np.float64},
        {"dtype": np.float16},
    ],
    ids=str,
)
def test_a_backend_passes(engine: Backend, options: dict[str, Any]) -> None:
    for seed in range(3):
        check_backend(engine, random_problem(Key.from_seed(seed), **options))


def test_a_third_partys_backend_is_one_of_the_protocol() -> None:
    assert isinstance(PLAIN, Backend)
    assert not isinstance(PLAIN, NumpyBackend)


@pytest.mark.parametrize("fault", BROKEN)
def test_every_broken_function_is_named(fault: str) -> None:
    function, given = BROKEN[fault]
    broken = PlainBackend()
    setattr(broken, function, given)
    with np.errstate(all="ignore"), pytest.raises(AssertionError, match=rf"^{function}: .+\.$"):
        check_backend(broken, PROBLEM)


@pytest.mark.parametrize("given", [raising, failing, lambda *a: None], ids=["raises", "asserts", "returns None"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_that_gives_nothing_is_named(function: str, given: Callable[..., Any]) -> None:
    broken = PlainBackend()
    setattr(broken, function, given)
    with pytest.raises(AssertionError, match=rf"^{function}: .+\.$") as caught:
        check_backend(broken, PROBLEM)
    cause = caught.value.__cause__
    if given is raising:
        assert isinstance(cause, ZeroDivisionError)
        assert "ZeroDivisionError was raised (integer division or modulo by zero)" in str(caught.value)


@pytest.mark.parametrize("method", ["Dense", "OracleTopK"])
def test_what_fails_in_a_methods_step_alone_is_named_by_the_method(method: str) -> None:
    """Of a function that works as often as its own check calls it."""
    function = {"Dense": "attend", "OracleTopK": "select"}[method]
    broken, calls = PlainBackend(), count()
    setattr(broken, function, lambda *a: getattr(PLAIN, function)(*a) if next(calls) < 8 else raising())
    with pytest.raises(AssertionError, match=rf"^{method}: ZeroDivisionError was raised"):
        check_backend(broken, PROBLEM)


def test_an_older_cache_that_an_append_changes_is_found() -> None:
    broken = PlainBackend()
    broken.write = caches_changed  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match=r"^Dense: .* over a cache after an append to it differs .+\.$"):
        check_backend(broken, PROBLEM)


def test_missing_members_are_named_first_and_all_at_once() -> None:
    class Half:
        name, write = "half", None
        to_device = to_host = store = exact_scores = select = average = raising

    with pytest.raises(AssertionError, match=r"^slot_block, write, take, attend: missing in Half, .+\.$"):
        check_backend(Half(), PROBLEM)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_is_close_to_nothing(wrong: float) -> None:
    with pytest.raises(AssertionError, match="relative RMS error"):
        assert_close(np.array([1.0, wrong]), np.array([1.0, 2.0]), "float16")
