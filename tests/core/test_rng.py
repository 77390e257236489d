"""Keys and Philox: golden vectors, agreement with NumPy's generator, independence of slicing, and errors."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="pip install 'socket-theory[test]'")
from hypothesis import given
from hypothesis import strategies as st

from socket_theory.core.hashing import SignHash
from socket_theory.core.rng import Key, normal, philox, uniform

WORDS = st.integers(0, 2**64 - 1)
KEYS = st.builds(lambda low, high: Key((low, high)), WORDS, WORDS)

# Random123's known-answer vectors for Philox4x64-10: counter, key, output.
ONES, PI = 2**64 - 1, (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89)
KNOWN_ANSWERS = [
    ((0,) * 4, (0, 0), (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)),
    ((ONES,) * 4, (ONES,) * 2, (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0)),
    (
        PI,
        (0x452821E638D01377, 0xBE5466CF34E90C6C),
        (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
    ),
]

GOLDEN_WORDS = [0x31CDC1B9B29D1708, 0x6144A7156CF7E0C6, 0x5648E1A6EA0AF4E2, 0xA2F66E88FFF7D782]
GOLDEN_NORMALS = [-0.8612657451556884, -0.30560211066255605, -0.42052884020761855, 0.34931278801563903]
GOLDEN_SEED = "44731ba9e8d1b225bf7075d98bb1f6e4"
GOLDEN_FOLD = "c9d39986185b955f04569e16fedfdac4"
GOLDEN_STEP = "536578e787bc975cf54463aa278ead57"
GOLDEN_SPLIT = ["26a17a567e7cd735dbb803c202166220", "e2076cd58a972d0c5542e9f6ee683bcf"]
GOLDEN_PLANES = [-0.019287109375, 2.234375, 0.63671875, -0.5234375]
GOLDEN_DIGEST = "772dbb0bc12c538fd253a2f683520e50a620fc2bf1f2d4a63fcf86d8e7b9a63e"


def numpy_block(counter: int, key: tuple[int, int]) -> list[int]:
    """The four words of NumPy's Philox at a 256-bit counter; it increments the counter before its first block."""
    before = (counter - 1) % 2**256
    limbs = np.array([before >> (64 * i) & (2**64 - 1) for i in range(4)], dtype=np.uint64)
    generator = np.random.Philox(counter=limbs, key=np.array(key, dtype=np.uint64))
    return [int(word) for word in generator.random_raw(4)]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_numpys_philox_gives_the_published_vectors(
    counter: tuple[int, ...], key: tuple[int, int], answer: tuple[int, ...]
) -> None:
    assert numpy_block(sum(word << (64 * i) for i, word in enumerate(counter)), key) == list(answer)


def test_philox_gives_the_published_vector_of_counter_zero() -> None:
    assert philox(Key((0, 0)), 0).tolist() == list(KNOWN_ANSWERS[0][2])


@given(KEYS, WORDS)
def test_philox_equals_numpys_at_every_key_and_counter(key: Key, counter: int) -> None:
    assert philox(key, counter).tolist() == numpy_block(counter, key.words)


@given(KEYS, WORDS, WORDS)
def test_a_step_is_the_second_word_of_the_counter(key: Key, counter: int, step: int) -> None:
    assert philox(key, counter, step).tolist() == numpy_block(step << 64 | counter, key.words)


@pytest.mark.parametrize("step", [-1, 2**64, 1.5, True])
def test_a_step_that_is_none_is_refused(step: object) -> None:
    with pytest.raises(ValueError, match=r"step=.* was given: pass an integer in \[0, 2\*\*64\)"):
        uniform(Key.from_seed(1), 0, step)  # type: ignore[arg-type]


@given(KEYS, WORDS)
def test_uniform_is_the_top_53_bits_of_the_first_word(key: Key, index: int) -> None:
    assert uniform(key, index) == (numpy_block(index, key.words)[0] >> 11) / 2**53


@given(KEYS, st.lists(WORDS, min_size=1, max_size=20))
def test_uniform_is_a_function_of_key_and_index_alone(key: Key, indices: list[int]) -> None:
    whole = uniform(key, np.array(indices, dtype=np.uint64))
    assert whole.tolist() == [float(uniform(key, i)) for i in indices]
    assert whole[::-1].tolist() == uniform(key, np.array(indices[::-1], dtype=np.uint64)).tolist()
    assert ((whole >= 0) & (whole < 1)).all()


def test_golden_uniforms_and_normals() -> None:
    key = Key.from_seed(2026)
    words = philox(key, np.arange(4))[:, 0]
    assert words.tolist() == GOLDEN_WORDS
    assert uniform(key, np.arange(4)).tolist() == [(word >> 11) / 2**53 for word in GOLDEN_WORDS]
    np.testing.assert_allclose(normal(key, np.arange(4)), GOLDEN_NORMALS, rtol=1e-14)


@pytest.mark.statistical
def test_uniform_and_normal_have_their_laws() -> None:
    from scipy.stats import kstest

    indices = np.arange(100_000, dtype=np.uint64)
    key = Key.from_seed(1)
    assert kstest(uniform(key, indices), "uniform").pvalue > 1e-6
    assert kstest(normal(key, indices), "norm").pvalue > 1e-6
    assert kstest(uniform(key, indices) ** 1.05, "uniform").pvalue < 1e-6


def test_normal_is_finite_and_symmetric_at_both_ends_of_the_unit_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = np.array([[0] * 4, [ONES] * 4], dtype=np.uint64)
    monkeypatch.setattr("socket_theory.core.rng.philox", lambda key, indices: ends)
    lowest, highest = normal(Key.from_seed(3), np.arange(2))
    assert -9 < lowest < -8
    assert lowest == pytest.approx(-highest, rel=1e-3)


def test_golden_keys() -> None:
    key = Key.from_seed(0)
    assert key.to_bytes().hex() == GOLDEN_SEED
    assert key.fold_in("planes").to_bytes().hex() == GOLDEN_FOLD
    assert key.fold_in("step", -7).to_bytes().hex() == GOLDEN_STEP
    assert [child.to_bytes().hex() for child in key.split(2)] == GOLDEN_SPLIT


def test_a_key_is_the_blake2b_digest_that_its_docstring_states() -> None:
    data = Key.from_seed(5).to_bytes() + (4).to_bytes(4, "little") + b"step" + b"12"
    assert Key.from_seed(5).fold_in("step", 12).to_bytes() == hashlib.blake2b(data, digest_size=16).digest()


@given(KEYS, st.text(max_size=8), st.text(max_size=8), st.integers(), st.integers())
def test_different_purposes_give_different_keys(key: Key, tag: str, other: str, value: int, second: int) -> None:
    assert (key.fold_in(tag, value) == key.fold_in(other, second)) == ((tag, value) == (other, second))
    assert key.fold_in(tag, value) != key


@given(KEYS)
def test_split_is_a_prefix_of_a_longer_split_and_of_the_stream(key: Key) -> None:
    children = key.split(8)
    assert len(set(children)) == 8
    assert children[:3] == key.split(3)
    assert children[:1] == key.split(1)
    assert [child for child, _ in zip(key.stream(), range(8), strict=False)] == list(children)


def test_generator_repeats_and_differs_between_keys() -> None:
    first, second = Key.from_seed(0).split(2)
    assert first.generator().random(4).tolist() == first.generator().random(4).tolist()
    assert first.generator().random(4).tolist() != second.generator().random(4).tolist()


def test_generator_shares_no_word_with_uniform() -> None:
    key = Key.from_seed(0)
    words = set(philox(key, np.arange(200)).ravel().tolist())
    assert not words & set(key.generator().bit_generator.random_raw(400).tolist())
    same_key = np.random.Philox(key=np.array(key.words, dtype=np.uint64))
    assert words & set(same_key.random_raw(400).tolist())


@pytest.mark.parametrize("words", [(0,), (0, 2**64), (-1, 0), (1, 2, 3)])
def test_words_outside_the_range_are_refused(words: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"is not a key: pass two integers in \[0, 2\*\*64\), or use Key.from_seed"):
        Key(words)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [1.0, "1", None, True])
def test_a_seed_that_is_not_an_integer_is_refused(seed: object) -> None:
    with pytest.raises(TypeError, match=r"is of type \w+: pass an integer\."):
        Key.from_seed(seed)  # type: ignore[arg-type]


def test_one_draw_of_planes_is_pinned() -> None:
    weights = SignHash(num_tables=3, num_planes=5, head_dim=16).draw(Key.from_seed(0)).weights
    assert weights[0, 0, :4].tolist() == GOLDEN_PLANES
    patterns = (weights.astype(np.float32).view(np.uint32) >> 16).astype("<u2")
    assert hashlib.sha256(patterns.tobytes()).hexdigest() == GOLDEN_DIGEST
