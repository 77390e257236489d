"""Every refusal is a sentence that names the argument, what was given and what to pass instead."""

import numpy as np
import pytest

from socket_theory import (
    Budget,
    Dense,
    HardLSH,
    Key,
    OracleTopK,
    Planes,
    RandomTokens,
    SignHash,
    Socket,
    SocketSampling,
    SoftKernel,
    angles,
    empty_state,
    merge_states,
    soft_angular_attention,
    softmax_attention,
)
from socket_theory.core.angular import angular_attention
from socket_theory.core.attention import weighted_state
from socket_theory.core.backend import resolve_backend
from socket_theory.core.rng import uniform
from socket_theory.core.selection import select_tokens
from socket_theory.core.storage import load_cache

KEY = Key.from_seed(0)
KEYS = KEY.generator().standard_normal((2, 2, 8, 4))
QUERY = KEY.generator().standard_normal((2, 4, 4))
SOCKET = Socket(num_tables=3)
CACHE = SOCKET.prepare(KEYS, KEYS, key=KEY, capacity=10)
DENSE = Dense().prepare(KEYS, KEYS)


class Carrying(Dense):
    """Dense attention that takes what the layer below hands on."""

    takes = Dense.takes | {"carry"}


CARRIED = Carrying().prepare(KEYS, KEYS)


def with_nan(array, place):
    bad = array.copy()
    bad[place] = np.nan
    return bad


def cases():
    yield "neither key nor sample", lambda: SOCKET.prepare(KEYS, KEYS), ValueError, "neither of key and sample"
    planes = SignHash(3, 10, 4).draw(KEY)
    both = lambda: SOCKET.prepare(KEYS, KEYS, key=KEY, sample=planes)  # noqa: E731
    yield "both key and sample", both, ValueError, "both of key and sample"
    yield (
        "integer key",
        lambda: SOCKET.prepare(KEYS, KEYS, key=0),
        TypeError,
        r"key=0 is of type int: pass Key\.from_seed",
    )
    other = SignHash(3, 10, 8).draw(KEY)
    yield (
        "planes of another head_dim",
        lambda: SOCKET.prepare(KEYS, KEYS, sample=other),
        ValueError,
        r"\(3, 10, 8\).*\(3, 10, 4\)",
    )
    yield (
        "key to a method without hashing",
        lambda: Dense().prepare(KEYS, KEYS, key=KEY),
        TypeError,
        "Dense does not use key",
    )
    center = np.zeros((2, 2, 4))
    yield "unused center", lambda: SOCKET.prepare(KEYS, KEYS, key=KEY, center=center), TypeError, "does not use center"
    centred = Socket(num_tables=3, center_keys=True)
    wrong = lambda: centred.prepare(KEYS, KEYS, key=KEY, center=center[0])  # noqa: E731
    yield "center of a wrong shape", wrong, ValueError, r"center of shape \(2, 4\) was given: pass \(2, 2, 4\)"
    yield (
        "budget to dense",
        lambda: Dense().attend(QUERY, DENSE, budget=Budget(tokens=4)),
        TypeError,
        "Dense does not use budget",
    )
    yield "key to socket", lambda: SOCKET.attend(QUERY, CACHE, key=KEY), TypeError, "Socket does not use key"
    sampler = SocketSampling(num_tables=3, num_samples=4)
    sampled = sampler.prepare(KEYS, KEYS, key=KEY)
    yield (
        "budget to a sampler",
        lambda: sampler.attend(QUERY, sampled, key=KEY, budget=Budget(tokens=4)),
        TypeError,
        "budget",
    )
    yield (
        "sm_scale to a sampler",
        lambda: sampler.attend(QUERY, sampled, key=KEY, sm_scale=1.0),
        TypeError,
        "does not use sm_scale",
    )
    yield (
        "sampler without a key",
        lambda: sampler.attend(QUERY, sampled),
        TypeError,
        r"key=None was given: pass Key\.from_seed",
    )
    drawn = RandomTokens().prepare(KEYS, KEYS)
    yield "random tokens without a key", lambda: RandomTokens().attend(QUERY, drawn), TypeError, "draws at every step"
    for name, dtype in (("int32", np.int32), ("bool", bool), ("complex128", complex)):
        cast = KEYS.astype(dtype)
        yield (
            f"{name} keys",
            lambda cast=cast: Dense().prepare(cast, cast),
            TypeError,
            "keys has dtype .*pass one of float16",
        )
    yield (
        "int8 keys",
        lambda: Dense().prepare(KEYS.astype("int8"), KEYS),
        TypeError,
        "quantised KV is not supported, dequantise",
    )
    yield "integer query", lambda: Dense().attend(QUERY.astype(int), DENSE), TypeError, "query has dtype int64"
    yield (
        "list",
        lambda: Dense().prepare([[1.0]], KEYS),
        TypeError,
        r"builtins\.list was given: pass a NumPy, CuPy or torch array",
    )
    for array in ("keys", "values"):
        pair = {"keys": KEYS, "values": KEYS} | {array: with_nan(KEYS, (0, 0, 0, 0))}
        yield f"NaN {array}", lambda pair=pair: Dense().prepare(**pair), ValueError, f"{array} contains NaN or infinity"
    yield "NaN query", lambda: Dense().attend(with_nan(QUERY, (0, 0, 0)), DENSE), ValueError, "query contains NaN"
    yield "infinite query", lambda: Dense().attend(QUERY * np.inf, DENSE), ValueError, "query contains NaN or infinity"
    yield (
        "huge keys",
        lambda: Dense().prepare(KEYS * 1e35, KEYS),
        ValueError,
        r"keys reaches .*rescale it to at most 1e\+32",
    )
    yield "NaN appended", lambda: CACHE.append(KEYS[:, :, :1] * np.nan, KEYS[:, :, :1]), ValueError, "keys contains NaN"
    yield "no token", lambda: Dense().prepare(KEYS[:, :, :0], KEYS[:, :, :0]), ValueError, "are empty"
    yield (
        "mismatched values",
        lambda: Dense().prepare(KEYS, KEYS[:, :, :4]),
        ValueError,
        r"\(2, 2, 8, 4\) and values \(2, 2, 4, 4\)",
    )
    yield "flat keys", lambda: Dense().prepare(KEYS[0, 0], KEYS[0, 0]), ValueError, r"num_kv_heads, kv_len, head_dim"
    yield (
        "odd head ratio",
        lambda: Dense().attend(QUERY[:, :3], DENSE),
        ValueError,
        "3 heads and keys have 2.*multiple of 2",
    )
    yield "no query head", lambda: Dense().attend(QUERY[:, :0], DENSE), ValueError, r"\(2, 0, 4\) was given: pass"
    yield (
        "query of another head_dim",
        lambda: Dense().attend(QUERY[..., :3], DENSE),
        ValueError,
        r"\(2, 4, 3\) was given: pass",
    )
    none, nine = (np.stack([QUERY] * 9, axis=2)[:, :, :count] for count in (0, 9))
    way = r"pass \(2, 'num_qo_heads', 4\), or \(2, 'num_qo_heads', 'tokens', 4\) for the last tokens of each sequence"
    yield "no query token", lambda: Dense().attend(none, DENSE), ValueError, way
    yield "two token axes", lambda: Dense().attend(nine[:, :, None], DENSE), ValueError, way
    yield (
        "more query tokens than the cache has",
        lambda: Dense().attend(nine, DENSE),
        ValueError,
        "a query of 9 tokens was given and a sequence of the cache has 8: append the keys and values",
    )
    yield (
        "a carry of one token for two",
        lambda: Carrying().attend(nine[:, :, :2], CARRIED, carry=("one",)),
        ValueError,
        r"carry=\('one',\) was given for 2 tokens: pass a tuple of one for each",
    )
    yield (
        "cache of another method",
        lambda: Socket(num_tables=4).attend(QUERY, CACHE),
        ValueError,
        "was prepared by Socket",
    )
    yield (
        "negative sm_scale",
        lambda: Dense().attend(QUERY, DENSE, sm_scale=-1.0),
        ValueError,
        "sm_scale=-1.0 was given",
    )
    yield (
        "integer out_dtype",
        lambda: Dense().attend(QUERY, DENSE, out_dtype="int32"),
        TypeError,
        "out_dtype has dtype int32",
    )
    big = Dense().prepare(KEYS, KEYS * 1e6)
    yield (
        "narrow out_dtype",
        lambda: Dense().attend(QUERY, big, out_dtype=np.float16),
        ValueError,
        "pass a wider out_dtype",
    )
    yield (
        "both budgets",
        lambda: Budget(tokens=4, fraction=0.5),
        ValueError,
        "tokens=4 and fraction=0.5 were given: pass exactly one",
    )
    yield "no budget", lambda: Budget(), ValueError, "pass exactly one"
    yield "zero tokens", lambda: Budget(tokens=0), ValueError, "tokens=0 was given: pass an integer of at least 1"
    yield "fractional tokens", lambda: Budget(tokens=0.5), TypeError, r"tokens=0\.5 is of type float: pass an integer"
    yield "fraction over 1", lambda: Budget(fraction=1.5), ValueError, r"fraction=1\.5 was given: pass a share"
    yield "NaN fraction", lambda: Budget(fraction=float("nan")), ValueError, "fraction=nan was given"
    yield "negative sink", lambda: Budget(tokens=4, sink=-1), ValueError, "sink=-1 was given"
    yield (
        "forced above tokens",
        lambda: Budget(tokens=4, sink=3, window=2),
        ValueError,
        "sink=3 and window=2: pass at least 5",
    )
    yield (
        "unknown heads to keep for",
        lambda: Budget(tokens=4, per="layer"),
        ValueError,
        "per='layer' was given: pass 'query_head' or 'kv_head'",
    )
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        make = lambda t=temperature: Socket(temperature=t)  # noqa: E731
        yield f"temperature {temperature}", make, ValueError, "temperature=.* was given: pass a finite number above 0"
    yield (
        "unknown query map",
        lambda: Socket(query_map="sign"),
        ValueError,
        "query_map='sign' is unknown: pass one of tanh_scaled",
    )
    yield "17 planes", lambda: Socket(num_planes=17), ValueError, "num_planes=17 was given: pass at most 16"
    yield "no tables", lambda: HardLSH(num_tables=0), ValueError, "num_tables=0 was given"
    yield "fractional tables", lambda: SignHash(1.5, 4, 8), TypeError, r"num_tables=1\.5 is of type float"
    yield "no samples", lambda: SocketSampling(num_samples=0), ValueError, "num_samples=0 was given"
    yield "flat planes", lambda: Planes(np.zeros((3, 4))), ValueError, r"planes of shape \(3, 4\)"
    yield "NaN planes", lambda: Planes(np.full((1, 2, 3), np.nan)), ValueError, "planes contain NaN"
    yield (
        "kv_len too long",
        lambda: Dense().prepare(KEYS, KEYS, kv_len=9),
        ValueError,
        r"kv_len=\[9, 9\] were given for 8 slots",
    )
    yield "kv_len zero", lambda: Dense().prepare(KEYS, KEYS, kv_len=[0, 8]), ValueError, "kv_len >= 1"
    yield "negative kv_start", lambda: Dense().prepare(KEYS, KEYS, kv_start=-1), ValueError, "kv_start >= 0"
    yield (
        "fractional kv_len",
        lambda: Dense().prepare(KEYS, KEYS, kv_len=2.5),
        TypeError,
        r"kv_len=2\.5 was given: pass integers",
    )
    yield "kv_len of a wrong shape", lambda: Dense().prepare(KEYS, KEYS, kv_len=[1, 2, 3]), ValueError, "kv_len"
    yield (
        "capacity below the tokens",
        lambda: Dense().prepare(KEYS, KEYS, capacity=7),
        ValueError,
        "capacity=7 was given",
    )
    yield (
        "appending past capacity",
        lambda: CACHE.append(KEYS[:, :, :3], KEYS[:, :, :3]),
        ValueError,
        "exceeds capacity=10",
    )
    narrow = KEYS[:, :, :1].astype(np.float32)
    yield (
        "appending another dtype",
        lambda: CACHE.append(narrow, narrow),
        TypeError,
        "keys of float32.*convert them first",
    )
    yield "appending other heads", lambda: CACHE.append(KEYS[:, :1], KEYS[:, :1]), ValueError, "do not fit the cache"
    yield "truncating to nothing", lambda: CACHE.truncate(0), ValueError, "length=0 was given"
    yield "truncating to more", lambda: CACHE.truncate([8, 9]), ValueError, "at most what each holds"
    yield "truncating to a float", lambda: CACHE.truncate(1.5), TypeError, "length=1.5 was given: pass integers"
    yield "taking past the batch", lambda: CACHE.take([0, 2]), ValueError, "pass integers from 0 to 1"
    yield "taking nothing", lambda: CACHE.take([]), ValueError, "non-empty list"
    single = Dense().prepare(KEYS[0], KEYS[0])
    yield "taking without a batch", lambda: single.take([0]), ValueError, "exactly one batch axis"
    yield (
        "merging two kinds",
        lambda: merge_states(empty_state((1, 2)), empty_state((1, 2), "angular")),
        ValueError,
        "one kind",
    )
    none = np.full((1, 3), -np.inf)
    yield "hard LSH without a collision", lambda: weighted_state(none, KEYS[0, 0, :3], "angular"), ValueError, "0/0"
    behind = lambda: angular_attention(QUERY[0, 0], -QUERY[0, :1], KEYS[0, 0, :1], 4)  # noqa: E731
    yield "only opposite keys", behind, ValueError, "no token has a positive weight"
    yield "no key", lambda: softmax_attention(QUERY[0, 0], KEYS[0, 0, :0], KEYS[0, 0, :0]), ValueError, "0/0"
    yield (
        "NaN score",
        lambda: select_tokens(np.array([0.0, np.nan]), Budget(tokens=1)),
        ValueError,
        "scores contain NaN",
    )
    yield "unknown backend", lambda: resolve_backend("numpy", "tpu"), ValueError, "backend='tpu' is not known"
    yield "budget of a wrong type", lambda: SOCKET.attend(QUERY, CACHE, budget=5), TypeError, r"pass Budget\(tokens=n\)"
    yield "cache of a wrong type", lambda: Dense().attend(QUERY, KEYS), TypeError, "pass what prepare returned"
    raw = np.zeros((3, 10, 4))
    yield (
        "planes as an array",
        lambda: SOCKET.prepare(KEYS, KEYS, sample=raw),
        TypeError,
        r"pass Planes, as Socket\.draw",
    )
    yield "no keys", lambda: Dense().prepare(None, KEYS), TypeError, "keys=None was given"
    yield "no values", lambda: Dense().prepare(KEYS, None), TypeError, "values=None was given"
    yield (
        "text as temperature",
        lambda: Socket(temperature="0.4"),
        TypeError,
        "temperature='0.4' is of type str: pass a number",
    )
    yield (
        "text as sm_scale",
        lambda: Dense().attend(QUERY, DENSE, sm_scale="1"),
        TypeError,
        "sm_scale='1' is of type str",
    )
    yield "huge sm_scale", lambda: Dense().attend(QUERY, DENSE, sm_scale=1e300), ValueError, "sm_scale reaches 1e\\+300"
    yield (
        "number as flag",
        lambda: Socket(value_weight=1),
        TypeError,
        "value_weight=1 is of type int: pass True or False",
    )
    yield "frozen temperature", lambda: Socket(temperature=1e-40), ValueError, "pass 1e-30 or more, or use HardLSH"
    half = KEYS.astype(np.float16)
    far = np.full((2, 2, 4), 1e30)
    late = lambda: centred.prepare(half, half, key=KEY, center=far)  # noqa: E731
    yield "center beyond the keys' dtype", late, ValueError, "center in the keys' float16 contains NaN or infinity"
    yield (
        "draw without a key",
        lambda: SignHash(1, 2, 3).draw(0),
        TypeError,
        r"key=0 is of type int: pass Key\.from_seed",
    )
    yield "fractional fold", lambda: KEY.fold_in("s", 0.5), TypeError, r"value=0\.5 is of type float: pass an integer"
    yield "fractional index", lambda: uniform(KEY, 0.7), ValueError, "pass non-negative integers"
    yield "negative index", lambda: uniform(KEY, np.array([-1])), ValueError, "pass non-negative integers"
    yield "tag of a wrong type", lambda: KEY.fold_in(3), TypeError, r"tag=3 is of type int: pass a name, as in fold_in"
    yield "uniforms of a seed", lambda: uniform(3, 0), TypeError, r"key=3 is of type int: pass Key\.from_seed"
    yield "no split", lambda: KEY.split(0), ValueError, "count=0 was given"
    yield "one word", lambda: Key(5), ValueError, "words=5 is not a key: pass two integers"
    yield "fractional key words", lambda: Key((1.5, 2.5)), ValueError, "is not a key"
    yield (
        "integer targets",
        lambda: softmax_attention(QUERY[0, 0], np.ones((3, 4), int), KEYS[0, 0, :3]),
        TypeError,
        "keys has dtype",
    )
    bad = with_nan(KEYS[0, 0], (0, 0))
    yield "NaN targets", lambda: softmax_attention(QUERY[0, 0], bad, KEYS[0, 0]), ValueError, "keys contains NaN"
    yield (
        "short values",
        lambda: softmax_attention(QUERY[0, 0], KEYS[0, 0], KEYS[0, 0, :3]),
        ValueError,
        r"pass \[N, D\]",
    )
    yield "list as keys", lambda: angles(QUERY[0, 0], [[1.0]]), TypeError, "keys is of type list"
    yield (
        "two queries",
        lambda: angular_attention(QUERY[0], KEYS[0, 0], KEYS[0, 0], 2),
        ValueError,
        r"pass one query \[head_dim\]",
    )
    law = SoftKernel(2, 0.4, "tanh", 8)
    other_law = lambda: soft_angular_attention(QUERY[0, 0], KEYS[0, 0], KEYS[0, 0], law)  # noqa: E731
    yield "kernel of another head_dim", other_law, ValueError, "head_dim=8 and the query 4"
    yield "seed of a wrong type", lambda: Key.from_seed(1.5), TypeError, r"seed=1\.5 is of type float: pass an integer"
    yield "key out of range", lambda: Key((0, 2**64)), ValueError, "is not a key"


CASES = list(cases())


@pytest.mark.parametrize(("call", "error", "sentence"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_bad_input_gets_a_sentence(call, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        call()
    assert str(caught.value).endswith(".")


def test_a_file_of_another_kind_is_named(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.save(tmp_path / "other.npy", np.zeros(3))
    (tmp_path / "other.txt").write_text("no cache")
    for name in ("other.npz", "other.npy", "other.txt"):
        with pytest.raises(ValueError, match=rf"{name} is not a cache of format 2"):
            load_cache(tmp_path / name)


def test_arrays_of_two_libraries_are_named(require_extra):
    torch = require_extra("torch", "torch")
    with pytest.raises(TypeError, match="keys is a torch array and values a numpy array"):
        Dense().prepare(torch.zeros(1, 2, 4), np.zeros((1, 2, 4)))
    with pytest.raises(TypeError, match="query is a torch array and the cache holds numpy arrays"):
        Dense().attend(torch.zeros(2, 4, 4, dtype=torch.float64), DENSE)
    with pytest.raises(TypeError, match="the cache holds numpy arrays and torch ones were given"):
        CACHE.append(torch.zeros(2, 2, 1, 4), torch.zeros(2, 2, 1, 4))
    cache = OracleTopK().prepare(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match=r"query requires grad.*pass query\.detach\(\)"):
        OracleTopK().attend(torch.zeros(1, 4, requires_grad=True), cache)


def test_a_device_without_a_backend_is_named(require_extra):
    torch = require_extra("torch", "torch")
    with pytest.raises(ValueError, match="'torch-xpu' is not known"):
        resolve_backend("torch-xpu")
    with pytest.raises(TypeError, match="center is a torch array and keys a numpy array"):
        Socket(num_tables=3, center_keys=True).prepare(KEYS, KEYS, key=KEY, center=torch.zeros(2, 2, 4))


def test_fp8_is_told_to_dequantise(require_extra):
    ml_dtypes = require_extra("torch", "ml_dtypes")
    quantised = KEYS.astype(ml_dtypes.float8_e4m3fn)
    with pytest.raises(TypeError, match="keys has dtype float8_e4m3fn: quantised KV is not supported"):
        Dense().prepare(quantised, KEYS)
