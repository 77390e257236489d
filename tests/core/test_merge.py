"""Merging states: what is nothing vanishes, what has no meaning is refused, arrays come back as they were given."""

import warnings

import numpy as np
import pytest

from socket_theory import AttentionState, Key, empty_state, merge_states, softmax_attention

DRAW = Key.from_seed(12).generator()
QUERY, KEYS, VALUES = DRAW.standard_normal((3, 8)), DRAW.standard_normal((20, 8)), DRAW.standard_normal((20, 4))
PARTS = [softmax_attention(QUERY, KEYS[part], VALUES[part]) for part in (slice(0, 7), slice(7, 20))]
WHOLE = softmax_attention(QUERY, KEYS, VALUES)


def state(value, lse):
    return AttentionState(np.array(value, float), np.array(lse, float))


@pytest.mark.parametrize("hole", [np.nan, np.inf, 7.0])
def test_a_row_without_weight_vanishes_whatever_its_value_is(hole):
    part, held = PARTS[0], np.array([True, False, True])
    other = state(np.where(held[:, None], part.value, hole), np.where(held, part.lse, -np.inf))
    for merged in (merge_states(other, PARTS[1]), merge_states(PARTS[1], other)):
        np.testing.assert_allclose(merged.value[held], WHOLE.value[held], rtol=1e-12)
        np.testing.assert_array_equal(merged.value[1], PARTS[1].value[1])
        np.testing.assert_array_equal(merged.lse[1], PARTS[1].lse[1])
    nothing = state(np.full((3, 4), hole), np.full(3, -np.inf))
    merged = merge_states(nothing, nothing)
    assert (merged.value == 0).all()
    assert (merged.lse == -np.inf).all()


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (state(np.ones((3, 4)), [0, np.inf, 0]), "an lse is NaN or"),
        (state(np.ones((3, 4)), [0, np.nan, 0]), "an lse is NaN or"),
        (state(np.full((3, 4), np.nan), np.zeros(3)), "a value is not finite where its lse"),
        (state(np.full((3, 4), np.inf), np.zeros(3)), "a value is not finite where its lse"),
        (state(np.ones((1, 4)), np.zeros(1)), "value has shape"),
        (state(np.ones(4), 0), "value has shape"),
        (state(np.ones((3, 1)), np.zeros(3)), "value has shape"),
        (state(np.ones((2, 3, 4)), np.zeros((2, 3))), "value has shape"),
        (state(np.ones((3, 4)), 0), "lse has shape"),
        (state(np.ones((3, 4)), np.zeros((3, 1))), "lse has shape"),
    ],
)
def test_states_without_a_meaning_are_refused(other, sentence):
    for pair in ((PARTS[0], other), (other, PARTS[0])):
        with pytest.raises(ValueError, match=sentence):
            merge_states(*pair)


def test_other_libraries_and_other_numbers_are_refused(require_extra):
    torch = require_extra("torch", "torch")
    tensors = AttentionState(torch.ones(3, 4), torch.zeros(3))
    with pytest.raises(TypeError, match=r"a.value is a numpy array and b.value a torch array"):
        merge_states(PARTS[0], tensors)
    with pytest.raises(TypeError, match=r"b.value has dtype int64"):
        merge_states(PARTS[0], AttentionState(np.ones((3, 4), int), np.zeros(3)))
    with pytest.raises(TypeError, match="pass a NumPy, CuPy or torch array"):
        empty_state((3, 4), like=[1.0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_arrays_come_back_in_their_library_and_dtype(library, dtype, require_extra):
    np_dtype = require_extra("torch", "ml_dtypes").bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    torch = require_extra("torch", "torch") if library == "torch" else None
    rounded = [AttentionState(part.value.astype(np_dtype), part.lse.astype(np.float32)) for part in PARTS]
    exact = merge_states(*(AttentionState(s.value.astype(float), s.lse.astype(float)) for s in rounded))

    def put(array):
        if torch is None:
            return array
        wide = torch.from_numpy(array.astype(np.float64))
        return wide.to(getattr(torch, str(array.dtype)))

    first, second = (AttentionState(put(s.value), put(s.lse)) for s in rounded)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merged = merge_states(empty_state((3, 4), like=first.value), first)
        merged = merge_states(merged, second)
        alone = merge_states(second, empty_state((3, 4), like=second.value))
    assert type(merged.value) is type(merged.lse) is type(first.value)
    assert (merged.value.dtype, merged.lse.dtype) == (first.value.dtype, empty_state((1,), like=first.value).lse.dtype)
    assert bool((alone.value == second.value).all())
    got = merged.value if torch is None else merged.value.double().numpy()
    np.testing.assert_array_equal(np.asarray(got).astype(float), exact.value.astype(np_dtype).astype(float))
    np.testing.assert_allclose(np.asarray(merged.lse, dtype=float), WHOLE.lse, rtol=1e-6)


def test_nothing_of_numpy_merges_with_a_state_of_any_library(require_extra):
    torch = require_extra("torch", "torch")
    state = AttentionState(torch.ones(3, 4), torch.zeros(3))
    for merged in (merge_states(empty_state((3, 4)), state), merge_states(state, empty_state((3, 4)))):
        assert (merged.value == state.value).all()
        assert merged.value.dtype == torch.float32
    for lse in (np.zeros(3), np.full(3, np.nan), np.full(2, -np.inf)):
        with pytest.raises(TypeError, match=r"numpy.*torch"):
            merge_states(AttentionState(np.ones((3, 4)), lse), state)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((), "softmax"), (3, "softmax"), ((3, 4), "sigmoid"), ((-2, 3), "softmax"), ((2.0, 3), "softmax")],
)
def test_an_empty_state_of_no_shape_or_kind_is_refused(shape, kind):
    with pytest.raises(ValueError, match="pass a tuple"):
        empty_state(shape, kind)


def test_two_dtypes_merge_in_the_wider_one(require_extra):
    bfloat16 = require_extra("torch", "ml_dtypes").bfloat16
    pairs = {("float16", bfloat16): "float32", ("float32", "float64"): "float64", (bfloat16, "float32"): "float32"}
    for (left, right), wide in pairs.items():
        merged = merge_states(
            *(AttentionState(p.value.astype(d), p.lse) for p, d in zip(PARTS, (left, right), strict=True))
        )
        assert (merged.value.dtype, merged.lse.dtype) == (wide, np.float64)
