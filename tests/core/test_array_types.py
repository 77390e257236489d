"""Arrays whose numbers are not all there, or not to be taken as they lie, are refused by name wherever one is taken."""

import numpy as np
import pytest

from socket_theory import (
    Dense,
    Key,
    Planes,
    Santa,
    SignHash,
    Socket,
    SocketSampling,
    angles,
    attention_logits,
    hard_kernel,
    softmax_attention,
)
from socket_theory.bounds.concentration import hoeffding_radius
from socket_theory.core.rng import uniform
from socket_theory.core.selection import Budget, select_tokens
from socket_theory.evaluate.capture import Capture
from socket_theory.santa.law import value_covariance
from socket_theory.santa.query import firing_probabilities, group_magnitudes, query_variance, sampled_query
from socket_theory.santa.samplers import iid_counts, systematic_counts
from socket_theory.santa.tiles import tiled_counts

KEY = Key.from_seed(8)
KEYS = KEY.generator().standard_normal((1, 2, 8, 8))
QUERY = KEY.generator().standard_normal((1, 4, 8))
ROWS, LAW = KEYS[0, 0], np.array([0.2, 0.3, 0.5])
CACHE = Dense().prepare(KEYS, KEYS)
CENTRED = Socket(num_tables=3, center_keys=True)
SAMPLER = SocketSampling(num_tables=3, num_samples=5)
SAMPLED = SAMPLER.prepare(KEYS, KEYS, key=KEY)
PLANES = SignHash(3, 4, 8).draw(KEY).weights

TAKEN = {
    "prepare: keys": ("keys", KEYS, lambda a: Dense().prepare(a, KEYS)),
    "prepare: values": ("values", KEYS, lambda a: SAMPLER.prepare(KEYS, a, key=KEY)),
    "prepare: center": ("center", KEYS[:, :, 0], lambda a: CENTRED.prepare(KEYS, KEYS, key=KEY, center=a)),
    "prepare: kv_start": ("kv_start", np.array([1]), lambda a: Dense().prepare(KEYS, KEYS, kv_start=a)),
    "prepare: kv_len": ("kv_len", np.array([3]), lambda a: Dense().prepare(KEYS, KEYS, kv_len=a)),
    "append: keys": ("keys", KEYS, lambda a: CACHE.append(a, KEYS)),
    "append: values": ("values", KEYS, lambda a: CACHE.append(KEYS, a)),
    "truncate": ("length", np.array([3]), CACHE.truncate),
    "take": ("batch_indices", np.array([0]), CACHE.take),
    "attend": ("query", QUERY, lambda a: Dense().attend(a, CACHE)),
    "attend of a sampler": ("query", QUERY, lambda a: SAMPLER.attend(a, SAMPLED, key=KEY)),
    "expectation": ("query", QUERY, lambda a: SAMPLER.expectation(a, SAMPLED)),
    "planes": ("planes", PLANES, Planes),
    "softmax_attention: query": ("query", QUERY[0, 0], lambda a: softmax_attention(a, ROWS, ROWS)),
    "softmax_attention: keys": ("keys", ROWS, lambda a: softmax_attention(QUERY[0, 0], a, ROWS)),
    "softmax_attention: values": ("values", ROWS, lambda a: softmax_attention(QUERY[0, 0], ROWS, a)),
    "attention_logits: query": ("query", QUERY[0, 0], lambda a: attention_logits(a, ROWS)),
    "attention_logits: keys": ("keys", ROWS, lambda a: attention_logits(QUERY[0, 0], a)),
    "angles": ("keys", ROWS, lambda a: angles(QUERY[0, 0], a)),
    "hard_kernel": ("theta", np.array([0.5]), lambda a: hard_kernel(a, 3)),
    "a bound": ("radius", LAW, lambda a: hoeffding_radius(0.1, 9, a)),
    "row_weights": ("weights", LAW, lambda a: Santa(4, "systematic").draws(a, np.array([0.5]))),
    "counts": ("weights", LAW, lambda a: iid_counts(a, np.array([0.5]))),
    "points": ("points", np.array([0.5]), lambda a: iid_counts(LAW, a)),
    "offsets": ("offsets", np.array(0.5), lambda a: systematic_counts(LAW, 4, a)),
    "budgets": ("budgets", np.array([1, 2]), lambda a: tiled_counts(LAW, 2, a, np.zeros(2))),
    "covariance": ("values", np.ones((3, 2)), lambda a: value_covariance(LAW, a)),
    "firing": ("magnitudes", QUERY, firing_probabilities),
    "sampled query": ("query", QUERY, lambda a: sampled_query(a, np.ones(8), 4)),
    "query variance": ("query", QUERY, lambda a: query_variance(a, 4, "iid")),
    "group magnitudes": ("queries", QUERY, group_magnitudes),
    "uniform": ("counters", np.array([1]), lambda a: uniform(KEY, a)),
    "select": ("scores", LAW, lambda a: select_tokens(a, Budget(tokens=2))),
    "capture": ("k", KEYS[None, 0], lambda a: Capture(QUERY[:, :, None], a, KEYS[None, 0], np.array([7]))),
    "positions": ("positions", np.array([7]), lambda a: Capture(QUERY[:, :, None], KEYS[None, 0], KEYS[None, 0], a)),
}


@pytest.mark.parametrize(("argument", "array", "call"), TAKEN.values(), ids=TAKEN)
@pytest.mark.parametrize("mask", [False, True])
def test_a_masked_array_is_refused_even_where_nothing_is_masked(argument, array, call, mask):
    with pytest.raises(TypeError, match=rf"^{argument} is a masked array: .*kv_start and kv_len\.$"):
        call(np.ma.masked_array(array, mask=np.full(array.shape, mask)))


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize(
    ("argument", "array", "call"), [case for case in TAKEN.values() if case[1].ndim <= 2 and case[0] != "k"]
)
def test_a_matrix_is_refused(argument, array, call):
    with pytest.raises((TypeError, ValueError), match=rf"{argument} .*(numpy\.asarray\({argument}\)|pass a non-empty)"):
        call(np.matrix(array))


def test_a_subclass_that_holds_plain_numbers_is_taken_for_them(tmp_path):
    stored = np.memmap(tmp_path / "keys.bin", dtype=np.float64, mode="w+", shape=KEYS.shape)
    stored[:] = KEYS
    cache = Dense().prepare(stored, stored)
    assert type(cache.keys) is np.ndarray
    np.testing.assert_array_equal(Dense().attend(QUERY, cache).value, Dense().attend(QUERY, CACHE).value)


class Elsewhere:
    """Memory that NumPy may not read, as CuPy's arrays and torch's CUDA tensors are."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("implicit conversion is not allowed")


@pytest.mark.parametrize("entry", ["prepare: kv_len", "truncate", "take", "planes", "a bound", "counts", "uniform"])
def test_counts_and_weights_in_other_memory_are_refused_by_name(entry):
    argument, _, call = TAKEN[entry]
    with pytest.raises(TypeError, match=rf"^{argument} of type \S*Elsewhere is no array that NumPy reads: pass"):
        call(Elsewhere())


@pytest.mark.parametrize("entry", ["prepare: kv_len", "truncate", "take", "planes", "a bound", "counts", "uniform"])
def test_lists_of_unequal_lengths_are_refused_by_name(entry):
    argument, _, call = TAKEN[entry]
    with pytest.raises((TypeError, ValueError), match=rf"^{argument}\b.*: pass .*\.$"):
        call([[1], [1, 2]])


@pytest.mark.parametrize("entry", ["softmax_attention: keys", "attention_logits: keys", "capture", "positions"])
@pytest.mark.parametrize("given", [None, [[1.0]]])
def test_what_is_no_array_is_refused_by_name(entry, given):
    argument, _, call = TAKEN[entry]
    with pytest.raises(TypeError, match=rf"^{argument} is of type \w+: pass a NumPy array"):
        call(given)


def odd_tensors(torch):
    """Each kind of torch tensor that cannot be read number by number, and what its refusal says."""
    dense = torch.from_numpy(KEYS)
    yield dense.to_sparse(), "is a torch tensor of layout sparse_coo: pass {name}.to_dense()"
    yield dense[0, 0].to_sparse_csr(), "is a torch tensor of layout sparse_csr: pass {name}.to_dense()"
    yield dense.float().to_mkldnn(), "is a torch tensor of layout _mkldnn"
    yield torch.nested.nested_tensor(list(dense[0])), "is a nested tensor: pad it"
    yield torch.nested.nested_tensor(list(dense[0]), layout=torch.jagged), "is a torch.nested"
    yield dense.to("meta"), "is a tensor on the meta device, which holds no numbers"
    yield torch.quantize_per_tensor(dense.float(), 0.1, 0, torch.qint8), "quantised KV is not supported, dequantise"
    yield torch.masked.masked_tensor(dense, dense > 0), "MaskedTensor: pass a plain dense torch.Tensor"
    with torch._subclasses.FakeTensorMode():
        yield torch.empty(dense.shape, dtype=torch.float64), "FakeTensor: pass a plain dense torch.Tensor"


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_torch_tensors_that_are_not_dense_numbers_are_refused_by_name(require_extra):
    torch, _ = require_extra("torch", "torch", "torch._subclasses")
    cache = Dense().prepare(torch.from_numpy(KEYS), torch.from_numpy(KEYS))
    for odd, sentence in odd_tensors(torch):
        for name, call in (
            ("keys", lambda a: Dense().prepare(a, a)),
            ("keys", lambda a: cache.append(a, a)),
            ("query", lambda a: Dense().attend(a, cache)),
        ):
            with pytest.raises(TypeError) as caught:
                call(odd)
            assert str(caught.value).startswith(name), caught.value
            assert sentence.format(name=name) in str(caught.value)
            assert str(caught.value).endswith(".")


def test_tensors_inside_vmap_are_refused(require_extra):
    torch = require_extra("torch", "torch")
    cache = Dense().prepare(torch.from_numpy(KEYS), torch.from_numpy(KEYS))
    with pytest.raises(TypeError, match=r"query has no memory of its own .*: call outside of vmap\."):
        torch.vmap(lambda query: Dense().attend(query, cache).value)(torch.from_numpy(QUERY)[None])


def test_parameters_and_grad_are_named(require_extra):
    torch = require_extra("torch", "torch")
    tensor = torch.from_numpy(KEYS)
    frozen = torch.nn.Parameter(tensor, requires_grad=False)
    assert bool((Dense().prepare(frozen, frozen).keys == KEYS).all())
    for name, call in (
        ("keys", lambda a: Dense().prepare(a, tensor)),
        ("values", lambda a: Dense().prepare(tensor, a)),
        ("center", lambda a: CENTRED.prepare(tensor, tensor, key=KEY, center=a[:, :, 0])),
    ):
        with pytest.raises(ValueError, match=rf"{name} requires grad.*pass {name}\.detach\(\)"):
            call(torch.nn.Parameter(tensor))
    with pytest.raises(TypeError, match=r"weights of type torch\.Tensor is no array that NumPy reads"):
        iid_counts(torch.tensor([0.5, 0.5], requires_grad=True), np.array([0.5]))
