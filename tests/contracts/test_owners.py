"""What an owner of rows may change and what it may not, and chunks that are refused before anything is written."""

import numpy as np
import pytest

from socket_theory import BorrowedRows, Dense, Key, PagedRows

KEY = Key.from_seed(3)
DRAW = KEY.generator()
KEYS, VALUES = DRAW.standard_normal((2, 1, 2, 10, 16)).astype("float32")
NEW = DRAW.standard_normal((1, 2, 3, 16)).astype("float32")
QUERY = DRAW.standard_normal((1, 4, 16)).astype("float32")


def pages(array):
    return np.ascontiguousarray(array.reshape(2, 5, 2, 16).swapaxes(0, 1))


def test_an_append_to_pages_reads_the_new_tokens_only(monkeypatch):
    rows = PagedRows(pages(KEYS[0]), pages(VALUES[0]), np.arange(5)[None])
    cache = Dense().prepare(rows, kv_len=7)

    def gather(*_):
        raise AssertionError("the whole cache was gathered.")

    monkeypatch.setattr(PagedRows, "_gathered", gather)
    grown = cache.append(rows, tokens=2)
    np.testing.assert_array_equal(grown.rows.tokens(np.array([7]), 2).keys, KEYS[:, :, 7:9])


def test_a_block_table_that_its_owner_changes_leaves_the_cache_as_it_was():
    table = np.arange(5)[None].copy()
    cache = Dense().prepare(PagedRows(pages(KEYS[0]), pages(VALUES[0]), table))
    table[:] = 99
    np.testing.assert_array_equal(cache.keys, KEYS)


def test_reordered_rows_are_of_the_same_types_and_may_have_more_slots():
    cache = Dense().prepare(BorrowedRows(KEYS, VALUES))
    with pytest.raises(ValueError, match=r"and float64 were given: pass numpy rows \(1, 2, 10, 16\) of float32"):
        cache.take([0], rows=BorrowedRows(KEYS.astype(float), VALUES))
    with pytest.raises(ValueError, match="with values of length 16"):
        cache.take([0], rows=BorrowedRows(KEYS, VALUES[..., :3]))
    with pytest.raises(ValueError, match="rows of 9 slots were given: pass all 10"):
        cache.take([0], rows=BorrowedRows(KEYS[:, :, :9], VALUES[:, :, :9]))
    longer = [np.pad(array, ((0, 0), (0, 0), (0, 5), (0, 0))) for array in (KEYS, VALUES)]
    taken = cache.take([0], rows=BorrowedRows(*longer))
    np.testing.assert_array_equal(Dense().attend(QUERY, taken).value, Dense().attend(QUERY, cache).value)


def test_nan_that_an_owner_writes_later_is_refused_in_a_sentence():
    keys = KEYS.copy()
    cache = Dense().prepare(BorrowedRows(keys, VALUES))
    keys[0, 0, 3] = np.nan
    with pytest.raises(ValueError, match="a weight is NaN or infinite: check query and keys, also those that another"):
        Dense().attend(QUERY, cache)


def test_a_refused_chunk_leaves_room_for_the_next():
    cache = Dense().prepare(KEYS, VALUES, capacity=40)
    wrong = np.full((1, 4, 3, 16), np.nan, np.float32)
    with pytest.raises(ValueError, match="query contains NaN"):
        Dense().prefill(wrong, NEW, NEW, cache=cache)
    assert np.shares_memory(cache.append(NEW, NEW).keys, cache.keys)


@pytest.mark.parametrize("query", [None, np.ones(3, np.float32), np.ones((1, 4, 1000, 16), np.float32)])
def test_a_query_that_no_prefill_can_be_of_is_refused(query):
    for cache in (None, Dense().prepare(BorrowedRows(KEYS[:, :, :5], VALUES[:, :, :5]))):
        with pytest.raises((TypeError, ValueError), match=r"query|tokens=1000 was given"):
            Dense().prefill(query, BorrowedRows(KEYS, VALUES), cache=cache)


def test_a_chunk_over_rows_that_hold_nan_by_now_is_refused_in_a_sentence():
    keys = KEYS.copy()
    cache = Dense().prepare(BorrowedRows(keys[:, :, :7], VALUES[:, :, :7]))
    keys[0, 1, 2] = np.nan
    with pytest.raises(ValueError, match="a weight is NaN or infinite"):
        Dense().prefill(np.repeat(KEYS[:, :, 7:], 2, axis=1), BorrowedRows(keys, VALUES), cache=cache)


@pytest.mark.parametrize("keys", [None, np.ones(3, np.float32), 1.5, "keys"])
def test_keys_that_no_prefill_can_be_of_are_refused(keys):
    for cache in (None, Dense().prepare(KEYS, VALUES)):
        with pytest.raises((TypeError, ValueError), match="keys"):
            Dense().prefill(np.repeat(KEYS, 2, axis=1), keys, keys, cache=cache)


def test_options_of_a_chunk_are_checked_before_its_tokens_are_appended():
    cache = Dense().prepare(KEYS, VALUES, capacity=40)
    for wrong in ({"out_dtype": "int8"}, {"sm_scale": -1.0}):
        with pytest.raises((TypeError, ValueError), match=r"out_dtype|sm_scale"):
            Dense().prefill(np.repeat(NEW, 2, axis=1), NEW, NEW, cache=cache, **wrong)
    assert np.shares_memory(cache.append(NEW, NEW).keys, cache.keys)
