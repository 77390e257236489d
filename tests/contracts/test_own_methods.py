"""A method of a user's own: its scores are checked once, and its cache is saved and loaded with it."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from socket_theory import Budget, Dense, Key, Socket, Window, load_cache, save_cache
from socket_theory.core.index import SumIndex, TokenIndex
from socket_theory.core.method import Method
from socket_theory.core.selector import Selector

KEY = Key.from_seed(12)
QUERY, KEYS, VALUES = (KEY.generator().standard_normal(shape) for shape in ((2, 4, 16), (2, 2, 40, 16), (2, 2, 40, 16)))
SPANS = {"kv_start": [3, 0], "kv_len": [30, 40]}
BUDGET = Budget(tokens=7)
SHAPE = r"\(2, 4, 40\)"


@dataclass(frozen=True)
class Returning(Selector):
    """Ranks by whatever it is made with."""

    returned: Any = None
    sharpness: float = 1.0

    def scores(self, step):
        return self.returned


@dataclass(frozen=True)
class FirstFeature(Selector):
    """Ranks by the first feature of a key, times that of the query."""

    sharpness: float = 1.0

    def scores(self, step):
        keys = step.rows.keys
        products = step.query.reshape(2, 2, 2, 16)[..., :1] * keys[:, :, None, :, 0]
        return (self.sharpness * products.reshape(2, 4, 40)).astype(np.float32)


@dataclass(frozen=True)
class LongKeys(Selector):
    """Ranks by a power of the key's length, kept in an index of its own, times what the query side says."""

    power: int = 1
    sign: int = 1
    query_side = ("sign",)

    def index(self, rows, sample, frozen):
        return TokenIndex({"lengths": (rows.keys**2).sum(-1).astype(np.float32) ** self.power})

    def scores(self, step):
        return self.sign * np.repeat(step.index.arrays["lengths"], 2, axis=1)


def prepared(backend, method):
    return method.prepare(backend.put(KEYS), backend.put(VALUES), backend=backend.engine, **SPANS)


def step(backend, method, budget=BUDGET):
    return backend.attend(method, QUERY, prepared(backend, method), budget=budget)


FLAT = np.zeros((2, 4, 40), dtype=np.float32)
REFUSED = {
    "nothing": (None, TypeError, rf"an object of type builtins\.NoneType: return a float32 \w+\.\w+ {SHAPE}"),
    "a list": (FLAT.tolist(), TypeError, r"an object of type builtins\.list"),
    "a number": (0.0, TypeError, r"an object of type builtins\.float"),
    "a masked array": (np.ma.masked_array(FLAT), TypeError, r"an object of type numpy\.ma\.MaskedArray"),
    "integers": (FLAT.astype(int), TypeError, rf"dtype int64: return a float32 \w+\.\w+ {SHAPE}"),
    "complex numbers": (FLAT.astype(complex), TypeError, "dtype complex128"),
    "a token too few": (FLAT[..., 1:], ValueError, rf"the shape \(2, 4, 39\): return {SHAPE}"),
    "a token too many": (np.zeros((2, 4, 41), np.float32), ValueError, r"the shape \(2, 4, 41\)"),
    "KV heads": (FLAT[:, ::2], ValueError, r"the shape \(2, 2, 40\).*query head \(not KV head\)"),
    "no batch axis": (FLAT[0], ValueError, r"the shape \(4, 40\)"),
    "NaN": (FLAT * np.nan, ValueError, "NaN: return numbers"),
    "what float32 cannot hold": (np.full((2, 4, 40), 1e300), ValueError, "numbers beyond float32: scale them"),
}


@pytest.mark.parametrize(("returned", "error", "sentence"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("group", ["query_head", "kv_head"])
def test_scores_that_cannot_rank_are_refused_with_the_name_of_the_class(backend, returned, error, sentence, group):
    returned = backend.put(returned) if type(returned) is np.ndarray else returned
    with pytest.raises(error, match=rf"^Returning\.scores returned {sentence}.*\.$"):
        step(backend, Returning(returned), Budget(tokens=7, per=group))


@pytest.mark.parametrize("sequence", [0, 1])
@pytest.mark.parametrize(
    ("number", "group", "words"),
    [
        (np.nan, "query_head", "NaN"),
        (np.inf, "kv_head", "numbers beyond 1.7e"),
        (1e300, "query_head", "numbers beyond float32"),
    ],
)
def test_one_score_of_any_sequence_that_cannot_rank_is_refused(backend, number, group, words, sequence):
    scores = np.zeros(FLAT.shape)
    scores[sequence, 3, 29] = number
    with pytest.raises(ValueError, match=f"returned {words}"):
        step(backend, Returning(backend.put(scores)), Budget(tokens=7, per=group))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_scores_of_any_float_rank_the_same(backend, dtype):
    ranks = np.argsort(np.argsort(KEY.fold_in("ranks").generator().random((2, 4, 40)), axis=-1), axis=-1)
    found = backend.get(step(backend, Returning(backend.put(ranks.astype(dtype)))).indices)
    for row, (start, length) in enumerate(zip(SPANS["kv_start"], SPANS["kv_len"], strict=True)):
        best = np.argsort(ranks[row, :, start : start + length], axis=-1)[:, -7:] + start
        np.testing.assert_array_equal(found[row], np.sort(best, axis=-1))


def test_scores_outside_the_valid_tokens_are_not_looked_at(backend):
    padding = FLAT.copy()
    padding[0, :, :3], padding[0, :, 33:] = np.nan, np.nan
    got, window = step(backend, Returning(backend.put(padding))), step(backend, Window())
    np.testing.assert_array_equal(backend.get(got.indices), backend.get(window.indices))


def test_without_a_budget_no_score_is_asked_for(backend):
    dense = step(backend, Returning(), budget=None)
    np.testing.assert_array_equal(backend.get(dense.value), backend.get(step(backend, Dense(), budget=None).value))


def saved(tmp_path, method, **index):
    path = tmp_path / "cache.npz"
    save_cache(method.prepare(KEYS, VALUES, **SPANS, **index), path)
    return path


def test_scores_to_be_added_are_below_infinity(backend):
    for large in (np.inf, 3e38, -3e38):
        scores = FLAT.copy()
        scores[:, :, 5], scores[:, :, 6] = large, -np.inf
        with pytest.raises(ValueError, match=r"Returning\.scores returned numbers beyond 1\.7e\+38: a group adds them"):
            step(backend, Returning(backend.put(scores)), Budget(tokens=7, per="kv_head"))
        alone = step(backend, Returning(backend.put(scores)))
        assert bool((alone.indices[:, 0] == 5).any()) == (large > 0)


@dataclass(frozen=True)
class Indexed(Method):
    """Keeps whatever its index is made with."""

    made: Any = None

    def freezes(self, num_kv_heads, head_dim):
        return {"b": (2,)}

    def index(self, rows, sample, frozen):
        return self.made


@pytest.mark.parametrize(
    ("made", "error", "sentence"),
    [
        (None, TypeError, "Indexed.index returned NoneType: return a TokenIndex of arrays by name, or a SumIndex"),
        ({"a": np.zeros((2, 2, 40))}, TypeError, "Indexed.index returned dict: return a TokenIndex"),
        (TokenIndex({"a": [1.0]}), TypeError, "Indexed.index returned a of builtins.list: return numbers in the type"),
        (TokenIndex({1: np.zeros((2, 2, 40))}), TypeError, "return a dict of arrays by name"),
        (TokenIndex({"a": np.float32(3)}), TypeError, "returned a of numpy.float32"),
        (TokenIndex({"a": np.zeros((2, 2, 40), object)}), TypeError, "returned a of object: return numbers"),
        (TokenIndex({"a": np.ma.zeros((2, 2, 40))}), TypeError, "returned a of numpy.ma"),
        (TokenIndex({"a": np.zeros(())}), ValueError, r"returned a \(\): return"),
        (TokenIndex({"a": np.zeros((2, 40, 2))}), ValueError, r"returned a \(2, 40, 2\): return \[2, \.\.\., 40\]"),
        (TokenIndex({"a": np.zeros((4, 40))}), ValueError, r"returned a \(4, 40\): return \[2, \.\.\., 40\]"),
        (SumIndex({"a": np.zeros(())}), ValueError, r"returned a \(\): return \[2, \.\.\.\]"),
        (SumIndex({"a": np.zeros((4, 3))}), ValueError, r"returned a \(4, 3\): return \[2, \.\.\.\]"),
        (SumIndex({"a": [1.0]}), TypeError, "returned a of builtins.list"),
        (
            TokenIndex({}, {"b": np.zeros((3, 2))}),
            ValueError,
            r"Indexed.index freezes b \(3, 2\), and freezes says \(2, 2\)",
        ),
    ],
)
def test_an_index_that_a_cache_cannot_hold_is_refused(made, error, sentence):
    with pytest.raises(error, match=sentence):
        Indexed(made).prepare(KEYS, VALUES, **SPANS)


@dataclass(frozen=True)
class Named(Window):
    """Keeps an array under a name that means something else where a cache is saved."""

    name: str = "keys"

    def index(self, rows, sample, frozen):
        return TokenIndex({self.name: 3 * rows.keys[..., 0]})


@pytest.mark.parametrize("name", ["keys", "values", "kv_range", "sample", "center", "header", "file", "allow_pickle"])
def test_an_index_may_have_any_name(tmp_path, name):
    path = saved(tmp_path, Named(name))
    again = load_cache(path, method=Named(name))
    np.testing.assert_array_equal(again.index.arrays[name], 3 * KEYS[..., 0])
    np.testing.assert_array_equal(again.keys, KEYS)


def test_a_method_that_is_no_dataclass_is_refused():
    class Plain(Method):
        def __init__(self, sign):
            object.__setattr__(self, "sign", sign)

    with pytest.raises(TypeError, match="Plain keeps sign, no field: declare it in a frozen dataclass"):
        Plain(1.0).prepare(KEYS, VALUES)


def test_a_subclass_makes_an_index_of_its_own():
    class Reversed(LongKeys):
        """Overrides nothing that the recipe names, and would read the other's index wrongly if it did."""

    with pytest.raises(ValueError, match="Reversed does not read the index of LongKeys"):
        LongKeys().prepare(KEYS, VALUES).with_method(Reversed())


def test_the_cache_of_an_own_method_is_loaded_with_it(tmp_path):
    method = FirstFeature(2.0)
    path = saved(tmp_path, method)
    again = load_cache(path, method=method)
    estimates = [method.attend(QUERY, cache, budget=BUDGET) for cache in (again, method.prepare(KEYS, VALUES, **SPANS))]
    np.testing.assert_array_equal(estimates[0].value, estimates[1].value)
    np.testing.assert_array_equal(estimates[0].indices, estimates[1].indices)
    with pytest.raises(TypeError, match=r"holds a cache of FirstFeature, a class of your own: pass load_cache\(path, "):
        load_cache(path)
    with pytest.raises(ValueError, match=r"FirstFeature\(sharpness=2\.0\) and method=Dense\(\) was given: pass a "):
        load_cache(path, method=Dense())


def test_an_own_index_is_read_by_methods_that_would_make_the_same(tmp_path):
    cache = LongKeys().prepare(KEYS, VALUES, **SPANS)
    path = saved(tmp_path, LongKeys())
    shortest = LongKeys(sign=-1)
    direct = shortest.attend(QUERY, shortest.prepare(KEYS, VALUES, **SPANS), budget=BUDGET).indices
    for other in (cache.with_method(shortest), load_cache(path, method=shortest)):
        np.testing.assert_array_equal(shortest.attend(QUERY, other, budget=BUDGET).indices, direct)
    for refuse in (lambda method: load_cache(path, method=method), cache.with_method):
        with pytest.raises(ValueError, match="power=2 was given and the index was made with power=1: prepare"):
            refuse(LongKeys(power=2))
    with pytest.raises(ValueError, match="Dense does not read the index of LongKeys"):
        cache.with_method(Dense())


def test_a_class_with_other_settings_than_the_saved_one_is_refused(tmp_path):
    @dataclass(frozen=True)
    class FirstFeature(Selector):
        """Of the same name, with another setting."""

        width: int = 1

    path = saved(tmp_path, globals()["FirstFeature"](2.0))
    with pytest.raises(ValueError, match=r"holds a cache of FirstFeature\(sharpness=2\.0\) and method=.*width=1"):
        load_cache(path, method=FirstFeature())


def test_an_own_class_named_like_one_of_the_library_is_not_taken_for_it(tmp_path):
    own = type("Socket", (Socket,), {"scores": lambda self, step: FLAT})
    path = saved(tmp_path, own(num_tables=5), key=KEY)
    with pytest.raises(TypeError, match="holds a cache of Socket, a class of your own"):
        load_cache(path)
    assert type(load_cache(path, method=own(num_tables=5)).method) is own


def test_a_cache_is_loaded_for_another_temperature_but_not_for_other_tables(tmp_path):
    method = Socket(num_tables=5)
    path = saved(tmp_path, method, key=KEY)
    warmer = replace(method, temperature=1.0)
    assert load_cache(path, method=warmer).method == warmer
    with pytest.raises(ValueError, match="num_tables=6 was given and the index was made with num_tables=5"):
        load_cache(path, method=Socket(num_tables=6))


def test_settings_that_a_file_would_not_give_back_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be saved: pass settings that are numbers, strings, booleans or None"):
        saved(tmp_path, Returning(returned=(1, 2)))
    assert not (tmp_path / "cache.npz").exists()


@dataclass(frozen=True)
class NoStep(Method):
    """Forgets to define a step."""


def test_what_a_method_forgot_to_define_is_named(backend):
    for kind, sentence in (
        (NoStep(), "NoStep must define step, or derive from Selector or Sampler"),
        (type("NoScores", (Selector,), {})(), "NoScores must define scores"),
    ):
        with pytest.raises(NotImplementedError, match=sentence):
            step(backend, kind)
