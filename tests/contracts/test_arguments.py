"""What a method does not take is refused by name, and what it needs is asked for, on every backend."""

import pytest

from socket_theory import Budget, Key, Santa, Socket
from socket_theory.core.method import Method

GIVEN = {"budget": Budget(tokens=5), "key": Key.from_seed(1), "carry": (), "sm_scale": 0.5}
TAKEN = set(GIVEN)


def test_every_method_says_what_it_takes(method):
    assert isinstance(method, Method)
    assert method.takes <= TAKEN


@pytest.mark.parametrize("argument", GIVEN)
def test_an_argument_that_is_not_taken_is_named(backend, method, argument):
    query, keys, values = backend.arrays()
    cache = backend.prepare(method, keys, values)
    options = backend.step_options(method) | {argument: GIVEN[argument]}
    step = backend.put(query)
    if argument in method.takes:
        assert method.attend(step, cache, **options).value.shape == query.shape
        return
    for asked in (step, backend.put(query[:, :, None])):
        with pytest.raises(
            TypeError, match=rf"^{type(method).__name__} does not use {argument}, and {argument}=.*: drop"
        ):
            method.attend(asked, cache, **options)


def test_a_key_that_is_taken_is_required(backend, drawing):
    query, keys, values = backend.arrays()
    cache = backend.prepare(drawing, keys, values)
    options = backend.step_options(drawing)
    for wrong in (None, 7):
        with pytest.raises(TypeError, match=rf"^{type(drawing).__name__} draws at every step, key={wrong} was given: "):
            drawing.attend(backend.put(query), cache, **options | {"key": wrong})


def test_exactly_one_of_key_and_sample_is_taken_by_methods_that_draw_one(backend, method):
    _, keys, values = backend.arrays()
    given = [backend.put(array) for array in (keys, values)]
    sample = backend.prepare(method, keys, values).sample
    assert (sample is None) == (method.sample_type is None)
    if sample is None:
        for name, argument in (("key", backend.key), ("sample", object())):
            with pytest.raises(
                TypeError, match=rf"^{type(method).__name__} does not use {name}, and {name}=.*: drop it"
            ):
                method.prepare(*given, backend=backend.engine, **{name: argument})
        return
    assert isinstance(sample, method.sample_type)
    for options, words in (({}, "neither"), ({"key": backend.key, "sample": sample}, "both")):
        with pytest.raises(ValueError, match=rf"^{words} of key and sample were given to .*: pass exactly one\.$"):
            method.prepare(*given, backend=backend.engine, **options)
    with pytest.raises(TypeError, match=rf"^sample is of type int: pass {method.sample_type.__name__}, as .*\.draw "):
        method.prepare(*given, backend=backend.engine, sample=3)
    with pytest.raises(TypeError, match=r"^key=3 is of type int: pass Key\.from_seed"):
        method.prepare(*given, backend=backend.engine, key=3)


def test_what_is_not_frozen_is_refused(backend, method):
    _, keys, values = backend.arrays()
    frozen = method.freezes(2, 16)
    name = next(name for name in ("center", "balance") if name not in frozen)
    with pytest.raises(TypeError, match=f"^{type(method).__name__} does not use {name}, and "):
        backend.prepare(method, keys, values, **{name: backend.put(keys[:, :, 0])})


def test_a_carry_is_no_argument_of_a_prefill_that_takes_none(backend, method):
    _, keys, values = backend.arrays(num_qo_heads=2)
    given = [backend.put(array) for array in (keys, keys, values)]
    if "carry" not in method.takes:
        with pytest.raises(TypeError, match=f"^{type(method).__name__} does not use carry, and carry="):
            method.prefill(*given, carry=(), **backend.drawn_from(method))


def test_a_scale_is_no_argument_of_a_prefill_over_sums_that_take_none(backend, summing):
    _, keys, values = backend.arrays(num_qo_heads=2)
    given = [backend.put(array) for array in (keys, keys, values)]
    assert "sm_scale" not in summing.takes
    with pytest.raises(TypeError, match=f"^{type(summing).__name__} does not use sm_scale, and sm_scale=0.5 was given"):
        summing.prefill(*given, sm_scale=0.5, **backend.drawn_from(summing))


def test_options_of_the_first_chunk_are_refused_for_a_further_one(backend):
    _, keys, values = backend.arrays(num_qo_heads=2)
    given = [backend.put(array) for array in (keys, keys, values)]
    for method, options in ((Socket(num_tables=3), {"key": backend.key}), (Santa(3), {"kv_len": 5})):
        cache = backend.prepare(method, keys, values)
        name = next(iter(options))
        with pytest.raises(TypeError, match=f"^{type(method).__name__} does not use {name}, and {name}="):
            method.prefill(*given, cache=cache, **options)
