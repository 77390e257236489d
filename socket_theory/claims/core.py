"""C1, C3, C4: the deterministic ground every estimator stands on. Merge, cache updates and code packing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_theory.core.attention import AttentionState, softmax_attention
from socket_theory.core.cache import Cache
from socket_theory.core.claim import Claim, Context, Measurement, worst
from socket_theory.core.hashing import MAX_PLANES, Planes, SignHash, code_signs, hash_keys
from socket_theory.core.states import empty_state, merge_states
from socket_theory.socket_lsh.estimator import Socket

Float = NDArray[np.float64]
Merge = Callable[[AttentionState, AttentionState], AttentionState]
Append = Callable[[Cache, Float, Float], Cache]
ROUNDING = 1e-12


def _merge_in_base_2(a: AttentionState, b: AttentionState) -> AttentionState:
    states = (AttentionState(s.value, s.lse * np.log(2), s.kind) for s in (a, b))
    merged = merge_states(*states)
    return AttentionState(merged.value, merged.lse / np.log(2), merged.kind)


def _state_distance(a: AttentionState, b: AttentionState) -> float:
    value = np.max(np.abs(a.value - b.value)) / np.max(np.abs(b.value))
    return float(max(value, np.max(np.abs(a.lse - b.lse) / np.maximum(1, np.abs(b.lse)))))


def _merge(context: Context, merge: Merge) -> Measurement:
    """Four parts of 63 tokens, one of them a single token, at logits of size 1 to 1000."""
    rng, errors = context.generator(), []
    for size in (0.3, 3.0, 300.0):
        query = size * rng.standard_normal((3, 16))
        keys, values = rng.standard_normal((63, 16)), rng.standard_normal((63, 5))
        cuts = (slice(0, 1), slice(1, 20), slice(20, 33), slice(33, 63))
        a, b, c, d = (softmax_attention(query, keys[cut], values[cut]) for cut in cuts)
        whole = softmax_attention(query, keys, values)
        errors.append(_state_distance(reduce(merge, (a, b, c, d)), whole))
        errors.append(_state_distance(merge(merge(a, b), merge(c, d)), whole))
        errors.append(_state_distance(merge(b, a), merge(a, b)))
        errors.append(_state_distance(merge(a, empty_state(a.value.shape)), a))
    return worst(errors, ROUNDING)


def _contents(cache: Cache) -> list[NDArray[Any]]:
    """Every array of the cache at its valid slots, sequence by sequence."""
    contents = []
    for row, (start, length) in enumerate(cache.kv_range):
        valid = slice(start, start + length)
        contents += [array[row][:, valid] for array in (cache.keys, cache.values)]
        contents += [array[row][..., valid] for array in cache.index.arrays.values()]
    return contents


def _differences(cache: Cache, expected: Cache) -> int:
    pairs = zip(_contents(cache), _contents(expected), strict=True)
    return sum(int((a != b).sum()) if a.shape == b.shape else max(a.size, b.size) for a, b in pairs)


def _prepare_again(cache: Cache, keys: Float, values: Float) -> Cache:
    """All tokens of one sequence prepared anew, with the mean key they have now."""
    end = int(cache.kv_range.sum())
    whole = (
        np.concatenate([old[..., :end, :], new], axis=-2) for old, new in ((cache.keys, keys), (cache.values, values))
    )
    again: Cache = cache.method.prepare(*whole, sample=cache.sample, kv_start=cache.kv_start)
    return again


def _append(context: Context, append: Append) -> Measurement:
    """Entries that differ, bit for bit, between a cache grown token by token and one prepared at once."""
    rng, differences = context.generator(), 0
    method = Socket(num_planes=9, num_tables=6, value_weight=True, center_keys=True)
    planes = SignHash(6, 9, 16).draw(context.key)
    for kv_len, pieces in ((1, (1, 1, 70)), (63, (1, 2)), (130, (64,))):
        keys, values = 3 + rng.standard_normal((2, 1, 2, kv_len + sum(pieces), 16))
        first = method.prepare(keys[..., :kv_len, :], values[..., :kv_len, :], sample=planes)
        grown, end = first, kv_len
        for count in pieces:
            grown = append(grown, keys[..., end : end + count, :], values[..., end : end + count, :])
            end += count
        whole = method.prepare(keys, values, sample=planes, center=first.index.frozen["center"])
        differences += _differences(grown, whole)
        differences += _differences(grown.truncate(kv_len), first)
    return Measurement(differences, 0)


def _take(context: Context, permute: bool) -> Measurement:
    """Entries that differ between the sequences taken from a left-padded batch and the same prepared alone."""
    rng, order = context.generator(), [2, 0, 2]
    method, planes = Socket(num_planes=9, num_tables=6, center_keys=True), SignHash(6, 9, 16).draw(context.key)
    keys, values = rng.standard_normal((2, 3, 2, 40, 16))
    starts = np.array([0, 7, 39])
    batch = method.prepare(keys, values, sample=planes, kv_start=starts)
    alone = method.prepare(keys[order], values[order], sample=planes, kv_start=starts[order])
    return Measurement(_differences(batch.take(order if permute else sorted(order)), alone), 0)


def _packing(context: Context, reverse: bool) -> Measurement:
    """Bits that differ from the signs of the keys they came from, over all numbers of planes."""
    wrong, rng = 0, context.generator()
    for num_planes in range(1, MAX_PLANES + 1):
        keys = rng.choice([-1.0, 1.0], size=(130, num_planes))
        codes = hash_keys(keys, Planes(np.eye(num_planes)[None]))[0]
        signs = code_signs(codes, num_planes)
        wrong += int(np.count_nonzero((signs[:, ::-1] if reverse else signs) != keys))
    return Measurement(wrong, 0)


CLAIMS = (
    Claim(
        id="C1",
        title="Merge of attention states",
        statement="Merging (value, lse) states is associative and commutative, the empty state is its identity, and "
        "merging the parts of a token set gives the softmax over the whole set.",
        source="own proof; Milakov and Gimelshein 2018 for the running normaliser",
        kind="identity",
        wrong="lse merged as if it were in base 2",
        check=partial(_merge, merge=merge_states),
        control=partial(_merge, merge=_merge_in_base_2),
    ),
    Claim(
        id="C3.append",
        title="Append and truncate",
        statement="Appending tokens one by one or in blocks gives, bit for bit, the cache that preparing them all at "
        "once gives under the same centring offset, and truncating undoes it.",
        source="hashing in zero-padded blocks of 64 rows; the offset is frozen at prepare",
        kind="identity",
        wrong="the centring offset recomputed at append",
        check=partial(_append, append=Cache.append),
        control=partial(_append, append=_prepare_again),
    ),
    Claim(
        id="C3.take",
        title="Taking sequences",
        statement="Taking sequences of a batch, in any order and with repeats, gives the cache of those sequences.",
        source="own definition; beam search needs it",
        kind="identity",
        wrong="the order forgotten",
        check=partial(_take, permute=True),
        control=partial(_take, permute=False),
    ),
    Claim(
        id="C4",
        title="Code packing",
        statement="Bit p of a code, least significant first, is the sign of the key on plane p, for every P <= 16.",
        source="definition of the code",
        kind="identity",
        wrong="most significant bit first",
        check=partial(_packing, reverse=False),
        control=partial(_packing, reverse=True),
    ),
)
