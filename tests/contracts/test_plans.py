"""A planned step is the eager one, on every backend: fresh queries, appends inside, ragged sequences, check, stages."""

from dataclasses import dataclass

import numpy as np
import pytest
from owners import LAYOUTS, RAGGED, Owner, paged

from socket_theory import Bernoulli, BorrowedRows, Budget, HardLSH, Key, PagedRows, Race, RandomTokens, Santa, Socket
from socket_theory.core.check_query import checked_scale
from socket_theory.core.step import Step
from socket_theory.testing import assert_close

RANGES = {"kv_start": [0, 7, 3], "kv_len": [300, 200, 1]}
SLOTS, CAPACITY = 300, 320
PLANNED = [
    Socket.as_released(),
    Socket(center_keys=True, query_map="tanh"),
    HardLSH(num_planes=4),
    Santa(64),
    Santa(64, "flash", tile_len=32),
]
SUMMING = [Race(num_planes=3, num_tables=5, beta=2.0)]
"""Methods that keep sums and no rows."""


def inputs(backend, dtype="float16"):
    return backend.arrays(slots=SLOTS, head_dim=64, dtype=dtype)


def planned(backend, method, keys, values, *, capacity=CAPACITY, **options):
    """A cache with room, and its plan with what the method takes."""
    cache = backend.prepare(method, keys, values, capacity=capacity, **RANGES)
    given = {"budget": Budget(tokens=60, sink=4, window=8)} if "budget" in method.takes else {}
    given |= {"key": backend.key} if "key" in method.takes else {}
    return cache, given, cache.plan(6, **given, **options)


def named(method):
    return str(type(method).__name__)


@pytest.fixture(params=PLANNED, ids=named)
def reading_method(request):
    return request.param


@pytest.fixture(params=PLANNED + SUMMING, ids=named)
def planned_method(request):
    return request.param


def test_a_run_is_the_eager_step_of_a_fresh_query(backend, planned_method):
    query, keys, values = inputs(backend)
    cache, given, plan = planned(backend, planned_method, keys, values)
    for scale in (1, -2) if "key" not in given else (1,):
        asked = backend.put(scale * query)
        value, lse = plan.run(asked)
        plan.check()
        eager = planned_method.attend(asked, cache, **given)
        assert_close(backend.get(value), backend.get(eager.value), "float16")
        assert_close(backend.get(lse), backend.get(eager.lse), "float32")


def test_what_a_run_returns_is_the_plans_own(backend, planned_method):
    query, keys, values = inputs(backend)
    plan = planned(backend, planned_method, keys, values)[2]
    value, lse = plan.run(backend.put(query))
    first = backend.get(value).copy()
    again, _ = plan.run(backend.put(-query))
    assert again is value
    assert value is plan.value or backend.get(value).tobytes() == backend.get(plan.value).tobytes()
    assert (backend.get(value) != first).any()
    assert backend.get(lse).shape == (3, 6)


def test_tokens_appended_inside_are_attended_to(backend, planned_method):
    query, keys, values = inputs(backend)
    cache, given, plan = planned(backend, planned_method, keys, values)
    new = [backend.put(array) for array in backend.arrays(slots=5, head_dim=64, dtype="float16", seed=1)[1:]]
    plan.append(*new)
    value, lse = plan.run(backend.put(query))
    plan.check()
    eager = planned_method.attend(backend.put(query), cache.append(*new), **given)
    assert_close(backend.get(value), backend.get(eager.value), "float16")
    assert_close(backend.get(lse), backend.get(eager.lse), "float32")


def test_what_exceeds_the_capacity_is_dropped_sequence_by_sequence_and_told_once(backend, planned_method):
    query, keys, values = inputs(backend)
    cache, given, plan = planned(backend, planned_method, keys, values, capacity=302)
    new = [backend.put(array) for array in backend.arrays(slots=5, head_dim=64, dtype="float16", seed=1)[1:]]
    plan.append(*new)
    value, _ = plan.run(backend.put(query))
    with pytest.raises(RuntimeError, match="an append exceeded the planned capacity and was dropped"):
        plan.check()
    plan.check()
    whole = (
        backend.prepare(planned_method, keys, values, **RANGES, sample=cache.sample, **dict(cache.index.frozen))
        if cache.sample is not None
        else backend.prepare(planned_method, keys, values, **RANGES)
    )
    longer = whole.append(*new)
    expected = backend.get(planned_method.attend(backend.put(query), longer, **given).value)
    expected[0] = backend.get(planned_method.attend(backend.put(query), whole, **given).value)[0]
    assert_close(backend.get(value), expected, "float16")


def test_stages_in_order_are_a_run(backend, planned_method):
    query, keys, values = inputs(backend)
    plan, other = (planned(backend, planned_method, keys, values)[2] for _ in range(2))
    expected = backend.get(plan.run(backend.put(query))[0])
    stages = other.stages(backend.put(query))
    assert stages
    for stage in stages.values():
        stage()
    np.testing.assert_array_equal(backend.get(other.value), expected)


@pytest.mark.parametrize("method", [Santa(64), Santa(64, "flash", tile_len=32)], ids=lambda method: method.sampler)
def test_step_n_draws_by_counter_n(backend, method):
    query, keys, values = inputs(backend)
    _, given, plan = planned(backend, method, keys, values)
    asked = backend.put(query)
    for number in range(3):
        value, _ = plan.run(asked)
        host = method.prepare(keys, values, **RANGES)
        expected = method.step(Step(query, host, checked_scale(None, 64), key=given["key"], number=number))
        assert_close(backend.get(value), expected.value, "float16")


@pytest.mark.parametrize("method", [RandomTokens(), Bernoulli(), Santa(64, "iid")], ids=str)
def test_steps_of_methods_without_kernels_draw_anew(backend, method):
    query, keys, values = inputs(backend)
    if backend.engine.name != "numpy":
        with pytest.raises(TypeError, match=r"has no planned step on backend 'cupy'|has no GPU plan"):
            planned(backend, method, keys, values)
        return
    plan = planned(backend, method, keys, values)[2]
    outputs = [backend.get(plan.run(backend.put(query))[0]).copy() for _ in range(3)]
    assert all((outputs[i] != outputs[j]).any() for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"key": 3}, TypeError, "Socket does not use key, which was given"),
        ({"carry": 3}, TypeError, "Socket does not use carry"),
        ({"sm_scale": -1.0}, ValueError, "sm_scale=-1.0 was given"),
        ({"out_dtype": np.int32}, TypeError, "out_dtype has dtype int32"),
    ],
)
def test_what_cannot_be_planned_is_refused(backend, options, error, sentence):
    _, keys, values = inputs(backend)
    cache = backend.prepare(Socket(), keys, values)
    with pytest.raises(error, match=sentence):
        cache.plan(6, **({"budget": Budget(tokens=60)} | options))


def owned(backend, method, layout, **options):
    """Plans of an owner's rows and of copies of them, and five tokens to append, which the rows already hold."""
    owner = Owner(backend, RAGGED, head_dim=64, dtype="float16")
    owner.grow()
    rows, at = layout(backend, owner.keys, owner.values), {"kv_start": owner.start, "kv_len": owner.length - 5}
    mine = backend.prepare(method, rows, **at)
    index = dict(mine.index.frozen) | ({} if mine.sample is None else {"sample": mine.sample})
    copies = backend.prepare(method, owner.keys, owner.values, **at, **index)
    given = {"budget": Budget(tokens=30, sink=4, window=8)} if "budget" in method.takes else {}
    given |= {"key": backend.key} if "key" in method.takes else {}
    plans = [cache.plan(6, **given, **options) for cache in (mine, copies)]
    return owner, rows, plans, [backend.put(array) for array in owner.new]


def require_same_bits(backend, query, plans):
    outputs = [[backend.get(array).copy() for array in plan.run(backend.put(query))] for plan in plans]
    for left, right in zip(*outputs, strict=True):
        np.testing.assert_array_equal(left, right)
    for plan in plans:
        plan.check()


READABLE = [name for name in LAYOUTS if name != "borrowed, strided"] + ["pages of 16, shared", "pages of 7"]


@pytest.mark.parametrize("layout", READABLE)
def test_a_plan_on_an_owners_rows_has_the_bits_of_one_on_copies(backend, reading_method, layout):
    made = {"pages of 16, shared": paged(16, shared=True), "pages of 7": paged(7)} | LAYOUTS
    owner, rows, plans, new = owned(backend, reading_method, made[layout])
    require_same_bits(backend, owner.query, plans)
    plans[0].append(rows, tokens=5)
    plans[1].append(*new)
    require_same_bits(backend, -owner.query, plans)


def test_pages_that_an_owner_adds_are_read(backend, reading_method):
    owner, rows, plans, new = owned(backend, reading_method, paged(4))
    last = (owner.start + owner.length - 6) // 4
    later = rows.block_table.copy()
    for row, block in enumerate(last + 1):
        rows.block_table[row, block:] = 0
    before = owned_plan(backend, reading_method, plans[1], rows, owner)
    require_same_bits(backend, owner.query, [before, plans[1]])
    before.append(PagedRows(rows.key_pages, rows.value_pages, later), tokens=5)
    plans[1].append(*new)
    require_same_bits(backend, -owner.query, [before, plans[1]])


def owned_plan(backend, method, like, rows, owner):
    """A plan of `rows` with the sample, the centre and the options of another one."""
    cache = like.cache
    index = dict(cache.index.frozen) | ({} if cache.sample is None else {"sample": cache.sample})
    mine = backend.prepare(method, rows, kv_start=owner.start, kv_len=owner.length - 5, **index)
    given = {"budget": Budget(tokens=30, sink=4, window=8)} if "budget" in method.takes else {}
    return mine.plan(6, **given, **({"key": backend.key} if "key" in method.takes else {}))


def test_tokens_beyond_an_owners_slots_are_dropped_sequence_by_sequence(backend, reading_method):
    owner, rows, plans, new = owned(backend, reading_method, LAYOUTS["pages of 64"])
    short = [array[:, :, :60] for array in (owner.keys, owner.values)]
    rows = LAYOUTS["borrowed"](backend, *(array.copy() for array in short))
    fits = owner.start + owner.length <= 60
    assert fits.tolist() == [True, True, False]
    plan = owned_plan(backend, reading_method, plans[1], rows, owner)
    plan.append(rows, tokens=5)
    value, _ = plan.run(backend.put(owner.query))
    with pytest.raises(RuntimeError, match="an append exceeded the planned capacity"):
        plan.check()
    found = backend.get(value).copy()
    plans[1].append(*new)
    whole = backend.get(plans[1].run(backend.put(owner.query))[0]).copy()
    np.testing.assert_array_equal(found[:2], whole[:2])
    assert (found[2] != whole[2]).any()


def test_a_plan_over_tensors_follows_their_owner(require_extra):
    torch = require_extra("torch", "torch")
    draw = torch.Generator().manual_seed(3)
    query, keys, values = (torch.randn(shape, generator=draw) for shape in ((2, 4, 16), (2, 2, 40, 16), (2, 2, 40, 16)))
    method, rows = Socket(num_tables=8, center_keys=True), BorrowedRows(keys, values)
    cache = method.prepare(rows, kv_len=[38, 30], key=Key.from_seed(1))
    plan = cache.plan(4, budget=Budget(tokens=9))
    for count, lengths in ((2, [40, 32]), (5, [40, 37])):
        plan.append(rows, tokens=count)
        assert plan.cache.kv_len.tolist() == lengths
    whole = method.prepare(
        rows, kv_len=lengths, sample=cache.sample, center=torch.from_numpy(cache.index.frozen["center"].copy())
    )
    value, _ = plan.run(query)
    assert torch.equal(value, method.attend(query, whole, budget=Budget(tokens=9)).value)
    with pytest.raises(RuntimeError, match="an append exceeded the planned capacity"):
        plan.check()


def test_what_is_refused_leaves_no_status(backend):
    query, keys, values = inputs(backend)
    plan = planned(backend, Socket(), keys, values, capacity=301)[2]
    for wrong in (keys[:, :1, :9], np.zeros((3, 2, 9, 64), np.float16)[..., :3]):
        with pytest.raises((TypeError, ValueError)):
            plan.append(backend.put(np.ascontiguousarray(wrong)), backend.put(values[:, :, :9].copy()))
    plan.run(backend.put(query))
    plan.check()


def test_rows_that_a_plan_cannot_follow_are_refused(backend):
    owner, rows, plans, new = owned(backend, Socket(), LAYOUTS["pages of 16"])
    pages = (rows.key_pages, rows.value_pages)
    wrong = [
        (
            lambda: plans[0].append(*new),
            TypeError,
            r"the cache reads PagedRows: pass append\(PagedRows\(...\), tokens=T\)",
        ),
        (lambda: plans[0].append(rows), TypeError, "the cache reads PagedRows"),
        (lambda: plans[0].append(rows, tokens=0), ValueError, "tokens=0 was given"),
        (lambda: plans[1].append(rows, tokens=5), TypeError, "the cache reads no rows of another owner"),
        (lambda: plans[1].append(*new, tokens=5), TypeError, "the cache reads no rows of another owner"),
        (
            lambda: plans[0].append(PagedRows(pages[0][:, :1], pages[1][:, :1], rows.block_table), tokens=5),
            ValueError,
            "rows of another array type, dtype or shape than the cache's",
        ),
    ]
    if backend.engine.name != "numpy":
        moved = PagedRows(*(array.copy() for array in pages), rows.block_table)
        shorter = PagedRows(*pages, rows.block_table[:, :-1])
        taller = PagedRows(
            *(backend.put(np.zeros((19, 2, 16, 64), np.float16)) for _ in range(2)), rows.block_table % 19
        )
        wrong += [
            (lambda: plans[0].append(moved, tokens=5), ValueError, "the rows lie elsewhere than those the step was"),
            (
                lambda: plans[0].append(taller, tokens=5),
                ValueError,
                r"rows of \(19, 2, 16, 64\) were given and the step",
            ),
            (lambda: plans[0].append(shorter, tokens=5), ValueError, r"block_table has shape \(3, 4\) and was planned"),
            (
                lambda: owned(backend, Socket(), LAYOUTS["borrowed, strided"]),
                ValueError,
                "keys lie at strides of .*: pass rows of neighbouring elements",
            ),
        ]
    for call, error, sentence in wrong:
        with pytest.raises(error, match=sentence):
            call()
    require_same_bits(backend, owner.query, plans)


@dataclass(frozen=True)
class Reversed(Socket):
    """Ranks the other way round."""

    def scores(self, step):
        return -super().scores(step)


def test_a_class_with_scores_of_its_own_is_not_planned_with_those_of_its_base(backend):
    query, keys, values = inputs(backend)
    cache = backend.prepare(Reversed(), keys, values)
    if backend.engine.name != "numpy":
        with pytest.raises(TypeError, match="Reversed has no GPU decode plan"):
            cache.plan(6, budget=Budget(tokens=60))
        return
    plan = cache.plan(6, budget=Budget(tokens=60))
    plan.run(query)
    eager = Reversed().attend(query, cache, budget=Budget(tokens=60))
    np.testing.assert_array_equal(plan.indices, eager.indices)


def test_a_head_ratio_and_a_query_that_do_not_fit_are_refused(backend):
    query, keys, values = inputs(backend)
    cache = backend.prepare(Socket(), keys, values)
    with pytest.raises(ValueError, match="the query has 5 heads and keys have 2"):
        cache.plan(5, budget=Budget(tokens=60))
    plan = cache.plan(6, budget=Budget(tokens=60))
    with pytest.raises(ValueError, match=r"query (has shape|of shape) \(3, 4, 64\)"):
        plan.run(backend.put(query[:, :4].copy()))
