"""What a method of your own returns is checked by name; what it may return is kept apart and saved."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from socket_theory import Budget, Dense, Key, load_cache, save_cache
from socket_theory.core.estimate import Outcome
from socket_theory.core.index import Index, SumIndex, TokenIndex
from socket_theory.core.method import Method
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.core.sampler import Sampler
from socket_theory.core.selector import Selector

KEY = Key.from_seed(3)
DRAW = KEY.generator()
KEYS, VALUES = DRAW.standard_normal((2, 1, 2, 10, 16)).astype("float32")
NEW = DRAW.standard_normal((1, 2, 3, 16)).astype("float32")
QUERY = DRAW.standard_normal((1, 4, 16)).astype("float32")
RIGHT = Outcome(np.ones((1, 4, 16)), np.zeros((1, 4)), np.zeros((1, 4, 1), np.int32))


@dataclass(frozen=True)
class Stepping(Method):
    """Returns what it is told to."""

    returned: Any = RIGHT

    def step(self, step):
        return self.returned


@pytest.mark.parametrize(
    ("returned", "error", "sentence"),
    [
        (None, TypeError, "Stepping.step returned NoneType: return an Outcome"),
        (RIGHT.value, TypeError, "Stepping.step returned ndarray: return an Outcome"),
        (replace(RIGHT, used=None), TypeError, "returned used of type NoneType: return an array"),
        (
            replace(RIGHT, value=np.ones((1, 2, 16))),
            ValueError,
            r"returned value of shape \(1, 2, 16\): return \(1, 4, 16",
        ),
        (replace(RIGHT, lse=np.zeros((1, 4, 1))), ValueError, r"returned lse of shape \(1, 4, 1\): return \(1, 4\)"),
        (replace(RIGHT, used=np.zeros((1, 2, 1), int)), ValueError, r"returned used of shape .*: return \(1, 4, 1\)"),
        (replace(RIGHT, lse=np.full((1, 4), np.nan)), ValueError, "Stepping.step returned NaN"),
        (replace(RIGHT, value=np.full((1, 4, 16), np.nan)), ValueError, "Stepping.step returned NaN"),
        (replace(RIGHT, used=np.full((1, 4, 1), 10)), ValueError, "returned used slots beyond the 10 there are"),
        (replace(RIGHT, weighting="linear"), ValueError, "returned weighting='linear': return one of softmax, angular"),
    ],
)
def test_an_outcome_that_no_estimate_can_be_made_of_is_refused_by_name(returned, error, sentence):
    method = Stepping(returned)
    with pytest.raises(error, match=sentence):
        method.attend(QUERY, method.prepare(KEYS, VALUES))
    right = Stepping()
    assert right.attend(QUERY, right.prepare(KEYS, VALUES)).value.shape == (1, 4, 16)


@dataclass(frozen=True)
class Drawing(Sampler):
    """Returns what it is told to."""

    returned: Any = None
    count: Any = 1

    def num_uniforms(self, kv_len):
        return self.count

    def draws(self, law, uniforms):
        return self.returned


@pytest.mark.parametrize(
    ("returned", "count", "error", "sentence"),
    [
        (None, 1, TypeError, r"Drawing.draws returned NoneType: return \[10\]"),
        (np.array([3, 7]), 1, TypeError, r"Drawing.draws returned shape \(2,\): return \[10\]"),
        (np.full(10, 0.2), 1, ValueError, "do not add up to 1"),
        (np.append(np.zeros(8), [-1.0, 2.0]), 1, ValueError, "below 0 or do not add up to 1"),
        (np.full(10, np.nan), 1, ValueError, "below 0 or do not add up to 1"),
        (np.full(10, 0.1), 2.5, TypeError, "num_uniforms=2.5 is of type float: pass an integer"),
        (np.full(10, 0.1), -1, ValueError, "num_uniforms=-1 was given"),
    ],
)
def test_draws_that_are_no_shares_of_rows_are_refused_by_name(returned, count, error, sentence):
    method = Drawing(returned, count)
    with pytest.raises(error, match=sentence):
        method.attend(QUERY, method.prepare(KEYS, VALUES), key=KEY)
    right = Drawing(np.full(10, 0.1))
    mean = right.attend(QUERY, right.prepare(KEYS, VALUES), key=KEY).value
    np.testing.assert_allclose(mean, np.repeat(VALUES.mean(axis=2), 2, axis=1), rtol=1e-5, atol=1e-6)


@dataclass(frozen=True)
class Growing(Selector):
    """An index of ones before the first append, and then of what it is told to."""

    later: Any = None

    def index(self, rows, sample, frozen):
        first = rows.shape[2] == 10
        return TokenIndex({"a": np.ones((1, 2, 10), np.int8)}) if first else self.later

    def scores(self, step):
        return np.zeros((1, 4, step.rows.shape[2]), np.float32)


@pytest.mark.parametrize(
    ("later", "error", "sentence"),
    [
        (
            TokenIndex({"b": np.ones((1, 2, 3), np.int8)}),
            TypeError,
            r"returned \['b'\] of new tokens, \['a'\] before: return those",
        ),
        (TokenIndex({"a": np.ones((1, 2, 3))}), ValueError, "returned a of float64 .* it had int8"),
        (TokenIndex({"a": np.ones((1, 1, 3), np.int8)}), ValueError, r"of int8 \(1, 1, 3\) for new tokens"),
        (
            SumIndex({"a": np.ones((1, 2, 3), np.int8)}),
            TypeError,
            "returned SumIndex of new tokens, TokenIndex before: return that",
        ),
    ],
)
def test_an_index_of_new_tokens_that_is_another_one_is_refused(later, error, sentence):
    cache = Growing(later).prepare(KEYS, VALUES)
    with pytest.raises(error, match=sentence):
        cache.append(NEW, NEW)


@dataclass(frozen=True)
class Viewing(Selector):
    """Keeps views of the rows."""

    def index(self, rows, sample, frozen):
        return TokenIndex({"keys": rows.keys.swapaxes(-1, -2), "first": rows.keys[..., 0]})

    def scores(self, step):
        return np.einsum("bhd,bhdn->bhn", step.query, np.repeat(step.index.arrays["keys"], 2, axis=1))


@pytest.mark.parametrize("capacity", [None, 13, 16, 30])
def test_an_index_may_be_a_view_of_the_rows(capacity):
    method = Viewing()
    cache = method.prepare(KEYS, VALUES, capacity=capacity)
    grown = cache.append(NEW, NEW)
    np.testing.assert_array_equal(cache.keys, KEYS)
    whole = np.concatenate([KEYS, NEW], axis=2)
    np.testing.assert_array_equal(grown.keys[:, :, :13], whole)
    np.testing.assert_array_equal(grown.index.arrays["keys"][..., :13], whole.swapaxes(-1, -2))
    np.testing.assert_array_equal(grown.index.arrays["first"][..., :13], whole[..., 0])


@dataclass(frozen=True, eq=False)
class Counting(TokenIndex):
    """An index with state of its own."""

    tokens: int = 0


@dataclass(frozen=True)
class Making(Selector):
    """Makes the index that it is told to."""

    kind: str = "own"

    def freezes(self, num_kv_heads, head_dim):
        return {"balance": (head_dim,)}

    def index(self, rows, sample, frozen):
        if self.kind == "own":
            return Counting({}, {}, rows.shape[2])
        if self.kind == "balanced":
            return TokenIndex({}, {"balance": 1 / (1 / frozen["balance"])})
        return TokenIndex({"inverse": 1 / np.linalg.norm(rows.keys, axis=-1)})


def test_an_index_of_an_own_class_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="has an index of Counting: only a TokenIndex or a SumIndex is saved"):
        save_cache(Making().prepare(KEYS, VALUES), tmp_path / "cache.npz")
    assert not (tmp_path / "cache.npz").exists()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("kind", "given"), [("balanced", {"balance": np.ones((1, 16), np.float32)}), ("inverse", {})])
def test_an_index_that_needs_what_was_frozen_or_keys_that_are_not_zero_is_loaded(kind, given, tmp_path):
    method = Making(kind)
    cache = method.prepare(KEYS, VALUES, **given)
    save_cache(cache, tmp_path / "cache.npz")
    again = load_cache(tmp_path / "cache.npz", method=method)
    for stored in ("arrays", "frozen"):
        left, right = (getattr(one.index, stored) for one in (again, cache))
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name])


@dataclass(frozen=True)
class Sample:
    """What Sampled draws."""

    part: Any


@dataclass(frozen=True)
class Sampled(Selector):
    """Draws what it is told to."""

    drawn: str = "a sample"

    sample_type = Sample

    def draw(self, head_dim, key):
        return {"a sample": Sample(np.ones(3)), "a key": Sample(key), "another type": 3}[self.drawn]


class Undeclared(Selector):
    def draw(self, head_dim, key):
        return 3


def test_samples_are_what_is_declared_and_saved_only_as_arrays(tmp_path):
    with pytest.raises(TypeError, match=r"Sampled\.draw returned int: return Sample"):
        Sampled("another type").prepare(KEYS, VALUES, key=KEY)
    with pytest.raises(TypeError, match="Undeclared defines draw and no sample_type: declare the type"):
        Undeclared().prepare(KEYS, VALUES, key=KEY)
    with pytest.raises(ValueError, match=r"sample.part is no array of numbers"):
        save_cache(Sampled("a key").prepare(KEYS, VALUES, key=KEY), tmp_path / "cache.npz")
    assert not (tmp_path / "cache.npz").exists()
    save_cache(Sampled().prepare(KEYS, VALUES, key=KEY), tmp_path / "cache.npz")
    again = load_cache(tmp_path / "cache.npz", method=Sampled())
    np.testing.assert_array_equal(again.sample.part, np.ones(3))


@dataclass(frozen=True)
class Carrying(Method):
    """Hands something on to the next layer."""

    takes = frozenset({"carry"})

    def step(self, step):
        return replace(RIGHT, carry=1 if step.carry is None else step.carry + 1)


def test_a_carry_goes_from_step_to_step_and_prefill_has_to_be_defined():
    method, several = Carrying(), np.stack([QUERY] * 3, axis=2)
    cache = method.prepare(KEYS, VALUES)
    assert method.attend(QUERY, cache).carry == 1
    assert method.attend(QUERY, cache, carry=1).carry == 2
    assert method.attend(several, cache, carry=(1, 5, 7)).carry == (2, 6, 8)
    with pytest.raises(ValueError, match=r"carry=3 was given for 3 tokens: pass a tuple of one for each"):
        method.attend(several, cache, carry=3)
    with pytest.raises(NotImplementedError, match="Carrying takes a carry: it must define prefill"):
        method.prefill(np.repeat(KEYS, 2, axis=1), KEYS, VALUES, carry=1)


class Bare(Index):
    """Defines nothing."""


@dataclass(frozen=True)
class Forgetful(Selector):
    """Its index can neither grow nor be cut."""

    def index(self, rows, sample, frozen):
        return Bare()


def test_an_index_that_forgets_a_function_is_named():
    cache = Forgetful().prepare(KEYS, VALUES)
    with pytest.raises(NotImplementedError, match="Bare must define append"):
        cache.append(NEW, NEW)
    with pytest.raises(NotImplementedError, match="Bare must define truncate"):
        cache.truncate(3)
    assert cache.truncate(10) is cache


def test_a_backend_that_is_none_is_refused():
    with pytest.raises(TypeError, match=r"backend=5 lacks name, slot_block, store.*: pass a name, or an object with"):
        Dense().prepare(KEYS, VALUES, backend=5)
    with pytest.raises(TypeError, match="NumpyBackend'> is a class: pass a name, or an object"):
        Dense().prepare(KEYS, VALUES, backend=NumpyBackend)


def test_selection_of_views_is_that_of_copies():
    method = Viewing()
    cache = method.prepare(KEYS, VALUES)
    order = np.argsort((QUERY[0, 0] @ KEYS[0, 0].T), kind="stable")[-4:]
    assert sorted(order) == method.attend(QUERY, cache, budget=Budget(tokens=4)).indices[0, 0].tolist()


@dataclass(frozen=True)
class Freezing(Selector):
    """Freezes what it is told to."""

    shape: Any = (1, 16)
    name: str = "balance"

    def freezes(self, num_kv_heads, head_dim):
        return {"balance": (head_dim,)}

    def index(self, rows, sample, frozen):
        return TokenIndex({}, {self.name: np.ones(self.shape)})


def test_what_is_frozen_is_what_freezes_lists():
    assert Freezing().prepare(KEYS, VALUES).index.frozen["balance"].shape == (1, 16)
    with pytest.raises(ValueError, match=r"Freezing.index freezes balance \(1, 2, 16\), and freezes says \(1, 16\)"):
        Freezing((1, 2, 16)).prepare(KEYS, VALUES)
    with pytest.raises(TypeError, match=r"Freezing\.index freezes scale: name it, with its shape, in freezes"):
        Freezing(name="scale").prepare(KEYS, VALUES)


@dataclass(frozen=True)
class Summing(Method):
    """Keeps a sum of keys and no rows."""

    keeps_rows = False

    def index(self, rows, sample, frozen):
        return SumIndex({"sum": rows.keys.sum(axis=2)})


def test_capacity_bounds_a_cache_without_rows_and_is_saved(tmp_path):
    cache = Summing().prepare(KEYS, VALUES, capacity=12)
    save_cache(cache, tmp_path / "cache.npz")
    for one in (cache, load_cache(tmp_path / "cache.npz", method=Summing())):
        assert one.append(NEW[:, :, :2], NEW[:, :, :2]).kv_len == 12
        with pytest.raises(ValueError, match="appending 3 tokens exceeds capacity=12"):
            one.append(NEW, NEW)
        with pytest.raises(ValueError, match="the cache keeps an index and no rows: it has neither keys nor values"):
            one.keys  # noqa: B018


class Noted(TokenIndex):
    """An index with an attribute of its own."""


@dataclass(frozen=True)
class Noting(Selector):
    """Makes a Noted index."""

    def index(self, rows, sample, frozen):
        made = Noted({"length": np.linalg.norm(rows.keys, axis=-1)})
        object.__setattr__(made, "note", "mine")
        return made


def test_an_index_without_views_is_kept_as_it_was_made():
    assert Noting().prepare(KEYS, VALUES).index.note == "mine"
