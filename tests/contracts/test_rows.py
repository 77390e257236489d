"""Rows that somebody else owns are read where they are, and give the bits of copies, on every backend."""

import numpy as np
import pytest
from owners import BORROWED, LAYOUTS, RAGGED, SLOTS, Owner, contiguous, every_second, paged

from socket_theory import BorrowedRows, Budget, Dense, Key, PagedRows, Socket, Window, load_cache, save_cache

OWN_KEY = Key.from_seed(5)


def caches(backend, method, layout, owner):
    """A cache of the owner's rows, and one of copies with the same sample and centre."""
    given = {"kv_start": owner.start, "kv_len": owner.length}
    mine = backend.prepare(method, layout(backend, owner.keys, owner.values), **given)
    return mine, backend.prepare(method, owner.keys, owner.values, **given, **remembered(mine))


def remembered(cache):
    """What makes the same index of other rows: the sample and what was frozen."""
    return dict(cache.index.frozen) | ({} if cache.sample is None else {"sample": cache.sample})


def require_same(backend, method, query, left, right):
    for budget in (backend.budget, Budget(tokens=9, per="kv_head")) if "budget" in method.takes else (None,):
        mine, theirs = (backend.attend(method, query, cache, budget=budget) for cache in (left, right))
        backend.equal(mine, theirs)
        for name in ("kept", "density", "bytes", "captured_mass"):
            np.testing.assert_array_equal(getattr(mine.stats, name), getattr(theirs.stats, name), err_msg=name)


def share_memory(left, right):
    if isinstance(left, np.ndarray):
        return np.shares_memory(left, right)
    return left.data.ptr == right.data.ptr


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_step_has_the_bits_of_copies(backend, reader, layout):
    owner = Owner(backend, RAGGED)
    mine, copies = caches(backend, reader, layout, owner)
    require_same(backend, reader, owner.query, mine, copies)
    several = np.stack([owner.query, -owner.query, 0.5 * owner.query], axis=2)
    require_same(backend, reader, several, mine, copies)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_dtypes_have_the_bits_of_copies(backend, layout, dtype):
    owner = Owner(backend, RAGGED)
    owner.query, owner.keys, owner.values = (a.astype(dtype) for a in (owner.query, owner.keys, owner.values))
    for method in (Dense(), Socket(num_tables=12, value_weight=True, center_keys=True)):
        require_same(backend, method, owner.query, *caches(backend, method, layout, owner))


@pytest.mark.parametrize("layout", BORROWED.values(), ids=BORROWED)
def test_borrowed_arrays_are_not_copied(backend, reader, layout):
    owner = Owner(backend, RAGGED)
    rows = layout(backend, owner.keys, owner.values)
    cache = backend.prepare(reader, rows, kv_start=owner.start, kv_len=owner.length)
    for grown in (cache, cache.truncate(3)):
        assert share_memory(grown.keys, rows.keys)
        assert share_memory(grown.values, rows.values)
    assert cache.keys.strides == rows.keys.strides


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_rows_that_their_owner_grew_are_appended(backend, reader, layout):
    owner = Owner(backend, RAGGED)
    mine, copies = caches(backend, reader, layout, owner)
    before = owner.length
    owner.grow()
    grown = mine.append(layout(backend, owner.keys, owner.values), tokens=5)
    longer = copies.append(*(backend.put(array) for array in owner.new))
    assert backend.get(grown.kv_len).tolist() == (before + 5).tolist()
    require_same(backend, reader, owner.query, grown, longer)
    require_same(backend, reader, owner.query, grown.truncate(before), copies)
    rows = layout(backend, owner.keys, owner.values)
    direct = backend.prepare(reader, rows, kv_start=owner.start, kv_len=owner.length, **remembered(mine))
    require_same(backend, reader, owner.query, grown, direct)


@pytest.mark.parametrize("layout", [contiguous, paged(16)], ids=["borrowed", "paged"])
def test_an_owner_may_move_to_longer_arrays_than_the_new_tokens_need(backend, reader, layout):
    owner = Owner(backend, RAGGED)
    mine, copies = caches(backend, reader, layout, owner)
    owner.grow()
    longer = [np.pad(a, ((0, 0), (0, 0), (0, 100), (0, 0)), constant_values=np.nan) for a in (owner.keys, owner.values)]
    grown = mine.append(layout(backend, *longer), tokens=5)
    copies = copies.append(*(backend.put(array) for array in owner.new))
    require_same(backend, reader, owner.query, grown, copies)
    more = backend.arrays(slots=2, seed=1)[1:]
    for array, new in zip(longer, more, strict=True):
        for row, end in enumerate(owner.start + owner.length):
            array[row, :, end : end + 2] = new[row]
    again = grown.append(layout(backend, *longer), tokens=2)
    require_same(backend, reader, owner.query, again, copies.append(*(backend.put(array) for array in more)))


@pytest.mark.parametrize("layout", [contiguous, paged(16)], ids=["borrowed", "paged"])
def test_an_owner_may_crop_its_arrays_after_a_truncation(backend, reader, layout):
    owner = Owner(backend, RAGGED)
    mine, copies = (cache.truncate([3, 2, 1]) for cache in caches(backend, reader, layout, owner))
    new = backend.arrays(slots=2, seed=1)[1:]
    cropped = [array[:, :, :16].copy() for array in (owner.keys, owner.values)]
    for array, more in zip(cropped, new, strict=True):
        for row, end in enumerate(owner.start + np.array([3, 2, 1])):
            array[row, :, end : end + 2] = more[row]
    grown = mine.append(layout(backend, *cropped), tokens=2)
    require_same(backend, reader, owner.query, grown, copies.append(*(backend.put(array) for array in new)))
    order = [2, 0, 0]
    taken = mine.take(order, rows=layout(backend, *(array[order] for array in cropped)))
    require_same(backend, reader, owner.query[order], taken, copies.take(order))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_truncated_rows_forget_the_newest_tokens(backend, reader, layout):
    owner = Owner(backend, RAGGED)
    mine, copies = caches(backend, reader, layout, owner)
    for length in (1, [20, 41, 3]):
        require_same(backend, reader, owner.query, mine.truncate(length), copies.truncate(length))


@pytest.mark.parametrize("page", [1, 16, 64])
def test_pages_are_taken_by_their_table(backend, reader, page):
    owner, order = Owner(backend, RAGGED), [2, 0, 0]
    mine, copies = caches(backend, reader, paged(page), owner)
    taken = mine.take(order)
    assert taken.rows.key_pages is mine.rows.key_pages
    require_same(backend, reader, owner.query[order], taken, copies.take(order))


@pytest.mark.parametrize("layout", BORROWED.values(), ids=BORROWED)
def test_borrowed_rows_are_reordered_by_their_owner(backend, reader, layout):
    owner, order = Owner(backend, RAGGED), [2, 0, 0]
    mine, copies = caches(backend, reader, layout, owner)
    taken = mine.take(order, rows=layout(backend, owner.keys[order], owner.values[order]))
    require_same(backend, reader, owner.query[order], taken, copies.take(order))


@pytest.mark.parametrize("page", [1, 16, 64])
def test_sequences_share_the_pages_of_a_common_beginning(backend, reader, page):
    owner = Owner(backend, {"kv_len": SLOTS})
    for array in (owner.keys, owner.values):
        array[1:, :, :48] = array[:1, :, :48]
    shared, alone = paged(page, shared=True), paged(page)
    mine, copies = caches(backend, reader, shared, owner)
    require_same(backend, reader, owner.query, mine, copies)
    apart = caches(backend, reader, alone, owner)[0]
    assert (mine.rows.nbytes < apart.rows.nbytes) == (page <= 48)


@pytest.mark.parametrize("layout", [every_second, paged(16)], ids=["borrowed", "paged"])
def test_a_saved_cache_of_rows_of_another_owner_is_one_of_copies(backend, keeping, layout, tmp_path):
    if backend.engine.name != "numpy":
        pytest.skip("caches are saved from the CPU: convert with NumPy first.")
    owner = Owner(backend, RAGGED)
    cache = caches(backend, keeping, layout, owner)[0]
    owner.grow()
    longer = [np.pad(a, ((0, 0), (0, 0), (0, 9), (0, 0)), constant_values=np.nan) for a in (owner.keys, owner.values)]
    for held in (cache, cache.append(layout(backend, *longer), tokens=5)):
        save_cache(held, tmp_path / "cache.npz")
        require_same(backend, keeping, owner.query, load_cache(tmp_path / "cache.npz"), held)


@pytest.mark.parametrize("layout", [every_second, paged(16)], ids=["borrowed", "paged"])
def test_sums_over_rows_of_another_owner_have_the_bits_of_copies_and_let_go_of_them(backend, summing, layout):
    owner = Owner(backend, RAGGED)
    mine, copies = caches(backend, summing, layout, owner)
    require_same(backend, summing, owner.query, mine, copies)
    new = [backend.put(array) for array in owner.new]
    require_same(backend, summing, owner.query, mine.append(*new), copies.append(*new))
    rows = layout(backend, owner.keys, owner.values)
    with pytest.raises(TypeError, match=r"^the cache reads no rows of another owner: pass the new tokens as arrays"):
        mine.append(rows, tokens=5)
    asked = np.zeros((3, 6, SLOTS, 16), np.float32)
    given = {"kv_start": owner.start, "kv_len": owner.length, "sample": mine.sample, "backend": backend.engine}
    first = summing.prefill(backend.put(asked), rows, **given)
    keys, values = (backend.put(array[:, :, :SLOTS]) for array in (owner.keys, owner.values))
    again = summing.prefill(backend.put(asked), keys, values, **given)
    np.testing.assert_array_equal(backend.get(first.value), backend.get(again.value))
    np.testing.assert_array_equal(backend.get(first.lse), backend.get(again.lse))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_tensors_of_torch_are_borrowed_where_they_are(keeping, dtype, require_extra):
    torch = require_extra("torch", "torch")
    draw = torch.Generator().manual_seed(3)
    query, keys, values = (
        torch.randn(shape, generator=draw).to(getattr(torch, dtype))
        for shape in ((3, 6, 16), (3, 40, 2, 16), (3, 2, 50, 16))
    )
    keys, values = keys.transpose(1, 2), values[:, :, :40]
    options = {} if keeping.sample_type is None else {"key": OWN_KEY}
    step = {"key": OWN_KEY, "budget": Budget(tokens=9)}
    step = {name: value for name, value in step.items() if name in keeping.takes}
    mine, copies = (keeping.prepare(*given, **options) for given in ((BorrowedRows(keys, values),), (keys, values)))
    for tensor, array in ((keys, mine.keys), (values, mine.values)):
        bits = tensor.view(torch.int16) if tensor.element_size() == 2 else tensor
        assert np.shares_memory(array.view(np.int16) if tensor.element_size() == 2 else array, bits.numpy())
    got, expected = (keeping.attend(query, cache, **step) for cache in (mine, copies))
    for name in ("value", "lse", "indices"):
        assert torch.equal(getattr(got, name), getattr(expected, name))


def test_a_cache_of_borrowed_rows_reads_what_their_owner_writes():
    query, keys, values = (np.ones(shape, np.float32) for shape in ((1, 2, 4), (1, 2, 6, 4), (1, 2, 6, 4)))
    cache = Dense().prepare(BorrowedRows(keys, values))
    values[...] = 3
    assert (Dense().attend(query, cache).value == 3).all()
    assert keys.flags.writeable


def test_what_does_not_fit_rows_of_another_owner_is_refused(backend):
    owner = Owner(backend, RAGGED)
    put = backend.put
    rows, pages = contiguous(backend, owner.keys, owner.values), paged(16)(backend, owner.keys, owner.values)
    given = {"kv_start": owner.start, "kv_len": owner.length}
    borrowed, in_pages = (backend.prepare(Window(), kind, **given) for kind in (rows, pages))
    copies = backend.prepare(Window(), owner.keys, owner.values, **given)
    keys, values = put(owner.keys), put(owner.values)
    wrong = [
        (
            lambda: Window().prepare(rows, values),
            TypeError,
            "values or capacity was given with BorrowedRows, whose owner",
        ),
        (
            lambda: Window().prepare(rows, capacity=99),
            TypeError,
            "values or capacity was given with BorrowedRows, whose",
        ),
        (
            lambda: Window().prepare(BorrowedRows(keys[0], values[0])),
            ValueError,
            r"BorrowedRows of shape \(2, 67, 16\)",
        ),
        (lambda: Window().prepare(BorrowedRows(keys, None)), TypeError, "values=None was given"),
        (
            lambda: Window().prepare(BorrowedRows(keys, values[:, :, 1:])),
            ValueError,
            r"keys \(3, 2, 67, 16\) and values",
        ),
        (lambda: Window().prepare(BorrowedRows(keys, values)), ValueError, "keys contains NaN or infinity"),
        (
            lambda: Window().prepare(PagedRows(keys[0], values[0], [[0]])),
            ValueError,
            r"pages of shape \(2, 67, 16\) were given: pass \[pages, num_kv_heads, slots, head_dim\]",
        ),
        (lambda: Window().prepare(PagedRows(keys, values, [0])), ValueError, r"block_table of int64 \(1,\) was given"),
        (lambda: Window().prepare(PagedRows(keys, values, [[0.5]])), ValueError, "block_table of float64"),
        (
            lambda: Window().prepare(PagedRows(keys, values, [[0, 3]])),
            ValueError,
            "names pages from 0 to 3: pass 0 to 2",
        ),
        (
            lambda: Window().prepare(PagedRows(keys, values, [[-1]])),
            ValueError,
            "names pages from -1 to -1: pass 0 to 2",
        ),
        (lambda: borrowed.append(keys, values), TypeError, r"the cache reads BorrowedRows: pass append\(BorrowedRows"),
        (lambda: borrowed.append(rows), TypeError, r"the cache reads BorrowedRows: pass append\(.*tokens=T\)"),
        (lambda: borrowed.append(pages, tokens=1), TypeError, "the cache reads BorrowedRows"),
        (lambda: in_pages.append(rows, tokens=1), TypeError, "the cache reads PagedRows"),
        (lambda: borrowed.append(rows, tokens=1), ValueError, "keys contains NaN or infinity"),
        (
            lambda: borrowed.append(rows, tokens=8),
            ValueError,
            "tokens=8 was given and the rows have 67 slots: pass longer",
        ),
        (lambda: borrowed.append(rows, tokens=0), ValueError, "tokens=0 was given"),
        (
            lambda: borrowed.append(BorrowedRows(keys[:, :1], values[:, :1]), tokens=1),
            ValueError,
            "rows of another array type, dtype or shape than the cache's were given: pass its BorrowedRows",
        ),
        (
            lambda: borrowed.append(BorrowedRows(keys.astype("float64"), values), tokens=1),
            ValueError,
            "rows of another array type, dtype or shape",
        ),
        (lambda: copies.append(rows, tokens=1), TypeError, "the cache reads no rows of another owner: pass the new"),
        (lambda: copies.append(keys, values, tokens=1), TypeError, "the cache reads no rows of another owner"),
        (lambda: borrowed.take([0]), ValueError, r"take would copy them: reorder the owner's arrays, and pass them as"),
        (
            lambda: borrowed.take([0], rows=rows),
            ValueError,
            r"rows of \w+ \(3, 2, 67, 16\) and float32 were given: pass \w+ rows \(1,",
        ),
        (
            lambda: borrowed.take([0], rows=pages),
            TypeError,
            "rows of type PagedRows were given to a cache of BorrowedRows",
        ),
        (
            lambda: copies.take([0], rows=rows),
            TypeError,
            "rows of type BorrowedRows were given to a cache of DenseRows",
        ),
        (lambda: borrowed.truncate(42), ValueError, "length=42 was given for sequences of"),
    ]
    for call, error, sentence in wrong:
        with pytest.raises(error, match=sentence):
            call()
