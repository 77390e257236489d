"""A planned step is the eager one, on every backend: fresh queries, appends inside, ragged sequences, check, stages."""

from dataclasses import dataclass

import numpy as np
import pytest

from socket_theory import Bernoulli, Budget, HardLSH, RandomTokens, Santa, Socket
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


def inputs(backend, dtype="float16"):
    return backend.arrays(slots=SLOTS, head_dim=64, dtype=dtype)


def planned(backend, method, keys, values, *, capacity=CAPACITY, **options):
    """A cache with room, and its plan with what the method takes."""
    cache = backend.prepare(method, keys, values, capacity=capacity, **RANGES)
    given = {"budget": Budget(tokens=60, sink=4, window=8)} if "budget" in method.takes else {}
    given |= {"key": backend.key} if "key" in method.takes else {}
    return cache, given, cache.plan(6, **given, **options)


@pytest.fixture(params=PLANNED, ids=lambda method: str(type(method).__name__))
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
    longer = whole.append(*new).truncate([300, 205, 6])
    eager = planned_method.attend(backend.put(query), longer, **given)
    assert_close(backend.get(value), backend.get(eager.value), "float16")


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
    with pytest.raises(ValueError, match="the query has 5 heads and the cache 2 KV heads"):
        cache.plan(5, budget=Budget(tokens=60))
    plan = cache.plan(6, budget=Budget(tokens=60))
    with pytest.raises(ValueError, match=r"query (has shape|of shape) \(3, 4, 64\)"):
        plan.run(backend.put(query[:, :4].copy()))
