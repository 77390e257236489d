"""Randomness as a value: a 128-bit key, and numbers that are a pure function of (key, index).

No function here has state. Two calls with the same key give the same result on any platform, thread count
and slicing of the indices, which is what lets a GPU kernel reproduce one sample of the reference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from socket_theory.core.checks import read_array, require_count

_MULTIPLIERS = (np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157))
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_LOW_32 = np.uint64(0xFFFFFFFF)
_SHIFT_32 = np.uint64(32)


@dataclass(frozen=True, slots=True)
class Key:
    """A 128-bit key. Derive new ones with `split` and `fold_in`; never reuse one for two purposes.

    Parameters
    ----------
    words : tuple of two int
        The key as two unsigned 64-bit words, low word first.

    Raises
    ------
    ValueError
        If a word lies outside [0, 2^64).
    """

    words: tuple[int, int]

    def __post_init__(self) -> None:
        pair = isinstance(self.words, tuple | list) and len(self.words) == 2
        integers = pair and all(isinstance(w, int | np.integer) for w in self.words)
        if not integers or any(not 0 <= int(w) < 2**64 for w in self.words):
            raise ValueError(
                f"words={self.words!r} is not a key: pass two integers in [0, 2**64), or use Key.from_seed(integer)."
            )
        object.__setattr__(self, "words", tuple(int(w) for w in self.words))

    @classmethod
    def from_seed(cls, seed: int) -> Key:
        """The key of an integer seed (BLAKE2b-128 of its decimal digits). Raises TypeError for anything else."""
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
            raise TypeError(f"seed={seed!r} is of type {type(seed).__name__}: pass an integer.")
        return cls._digest(b"seed:" + str(int(seed)).encode())

    @classmethod
    def _digest(cls, data: bytes) -> Key:
        digest = hashlib.blake2b(data, digest_size=16).digest()
        return cls((int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")))

    def to_bytes(self) -> bytes:
        """The 16 bytes of the key, little endian."""
        return b"".join(int(w).to_bytes(8, "little") for w in self.words)

    def fold_in(self, tag: str, value: int = 0) -> Key:
        """The key for purpose `tag`, item `value`: BLAKE2b-128 of (key, tag, value).

        Raises
        ------
        TypeError
            If the tag is no str or the value no integer.
        """
        if not isinstance(tag, str):
            raise TypeError(f"tag={tag!r} is of type {type(tag).__name__}: pass a name, as in fold_in('step', 3).")
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"value={value!r} is of type {type(value).__name__}: pass an integer.")
        name = tag.encode()
        return self._digest(self.to_bytes() + len(name).to_bytes(4, "little") + name + str(int(value)).encode())

    def split(self, count: int) -> tuple[Key, ...]:
        """`count` keys that are independent for every practical purpose. TypeError or ValueError unless a count."""
        return tuple(self.fold_in("split", i) for i in range(require_count("count", count)))

    def stream(self) -> Iterator[Key]:
        """The keys of `split`, without an end."""
        index = 0
        while True:
            yield self.fold_in("split", index)
            index += 1

    def generator(self) -> np.random.Generator:
        """A NumPy generator for bulk Monte Carlo; it shares no word with `uniform` of the same key."""
        words = np.array(self.fold_in("generator").words, dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=words))


def require_rng_key(key: Any) -> Key:
    """`key` if it is a Key, else TypeError."""
    if not isinstance(key, Key):
        raise TypeError(f"key={key!r} is of type {type(key).__name__}: pass Key.from_seed(integer).")
    return key


def _multiply_high_low(a: np.uint64, b: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    a_low, a_high = a & _LOW_32, a >> _SHIFT_32
    b_low, b_high = b & _LOW_32, b >> _SHIFT_32
    low_low, high_low = a_low * b_low, a_high * b_low
    middle = a_low * b_high + (low_low >> _SHIFT_32)
    cross = high_low + (middle & _LOW_32)
    high = a_high * b_high + (middle >> _SHIFT_32) + (cross >> _SHIFT_32)
    return high, (cross << _SHIFT_32) | (low_low & _LOW_32)


def philox(key: Key, counters: ArrayLike, step: int = 0) -> NDArray[np.uint64]:
    """Philox4x64-10 at the counters (i, step, 0, 0).

    Shapes: counters [...] -> words [..., 4], both unsigned 64-bit.

    Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    if isinstance(step, bool) or not isinstance(step, int | np.integer) or not 0 <= step < 2**64:
        raise ValueError(f"step={step!r} was given: pass an integer in [0, 2**64).")
    given = read_array("counters", counters)
    if given.dtype.kind not in "iu" or (given.dtype.kind == "i" and (given < 0).any()):
        raise ValueError(f"counters of dtype {given.dtype} were given: pass non-negative integers.")
    first = given.astype(np.uint64)
    c0, c1 = first.copy(), np.full_like(first, step)
    c2, c3 = np.zeros_like(first), np.zeros_like(first)
    k0, k1 = require_rng_key(key).words
    for _ in range(_ROUNDS):
        high0, low0 = _multiply_high_low(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply_high_low(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ np.uint64(k0), low1, high0 ^ c3 ^ np.uint64(k1), low0
        k0, k1 = (k0 + _WEYL[0]) % 2**64, (k1 + _WEYL[1]) % 2**64
    return np.stack([c0, c1, c2, c3], axis=-1)


def uniform(key: Key, indices: ArrayLike, step: int = 0) -> NDArray[np.float64]:
    """Uniforms on [0, 1) with 53 bits: the top bits of the first Philox word at counter (index, step, 0, 0).

    Shapes: indices [...] integers in [0, 2^64) -> float64 [...]. `step` is for a device that counts steps by itself;
    elsewhere fold it into the key.
    """
    return np.asarray((philox(key, indices, step)[..., 0] >> np.uint64(11)) * 2.0**-53)


def normal(key: Key, indices: ArrayLike) -> NDArray[np.float64]:
    """Standard normals by inversion of 52-bit uniforms centred in their cells, so 0 and 1 never occur.

    Shapes: indices [...] -> float64 [...].
    """
    from scipy.special import ndtri

    cells = (philox(key, indices)[..., 0] >> np.uint64(12)).astype(np.float64)
    return np.asarray(ndtri((cells + 0.5) * 2.0**-52))
