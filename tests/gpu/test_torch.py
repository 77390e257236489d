"""Torch CUDA tensors in and out: torch's current stream, its dtypes, the CuPy step's numbers."""

import numpy as np
import pytest

from socket_theory import Budget, Dense, Key, Santa, Socket
from socket_theory.core.array_types import to_native
from socket_theory.testing import assert_close

pytestmark = pytest.mark.gpu
KEY, METHOD, BUDGET = Key.from_seed(43), Socket.as_released(), Budget(tokens=60, sink=4, window=8)


@pytest.fixture(scope="module")
def torch(device):
    """Torch with CUDA on this machine, or a skip that names what is missing."""
    found = pytest.importorskip("torch", reason="torch CUDA tensors need torch: pip install 'socket-theory[torch]'")
    if not found.cuda.is_available():
        pytest.skip("this torch was built without CUDA or sees no device: install a CUDA build of torch.")
    return found


def tensors(torch, dtype):
    """Query [2, 8, 64], keys and values [2, 2, 300, 64], and three more tokens, on the CPU."""
    draw = KEY.generator()
    shapes = [(2, 8, 64), (2, 2, 300, 64), (2, 2, 300, 64), (2, 2, 3, 64), (2, 2, 3, 64)]
    return [torch.from_numpy(2 * draw.standard_normal(shape)).to(getattr(torch, dtype)) for shape in shapes]


def steps(method, query, keys, values, new_keys, new_values, **options):
    """The estimates before and after an append."""
    key = {} if method.sample_type is None else {"key": KEY}
    cache = method.prepare(keys, values, kv_start=[0, 7], kv_len=[300, 200], capacity=320, **key)
    grown = cache.append(new_keys, new_values)
    return [method.attend(query, one, **options) for one in (cache, grown)]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_step_on_torchs_stream_is_the_cpus(torch, dtype):
    given = tensors(torch, dtype)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        on_device = [tensor.to("cuda", non_blocking=True) for tensor in given]
        dense, sparse = steps(Dense(), *on_device), steps(METHOD, *on_device, budget=BUDGET)
    stream.synchronize()
    for found, expected in zip(dense, steps(Dense(), *given), strict=True):
        assert found.value.device.type == found.lse.device.type == found.indices.device.type == "cuda"
        assert found.value.dtype == given[0].dtype
        assert found.indices.dtype == torch.int32
        assert torch.equal(found.indices.cpu(), expected.indices)
        assert_close(found.value.cpu().double(), expected.value.double(), dtype)
        assert_close(found.lse.cpu().double(), expected.lse.double(), dtype)
    for found, expected in zip(sparse, steps(METHOD, *given, budget=BUDGET), strict=True):
        assert found.value.dtype == given[0].dtype
        pairs = zip(found.indices.cpu().reshape(16, -1), expected.indices.reshape(16, -1), strict=True)
        shared = [len(set(left.tolist()) & set(right.tolist())) for left, right in pairs]
        assert np.mean(shared) > 0.95 * 60


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_torch_tensors_give_the_numbers_of_cupy_arrays(device, torch, dtype):
    given = [tensor.cuda() for tensor in tensors(torch, dtype)]
    native = [to_native("tensor", tensor) for tensor in given]
    ours, theirs = steps(METHOD, *given, budget=BUDGET), steps(METHOD, *native, budget=BUDGET)
    for found, expected in zip(ours, theirs, strict=True):
        for name in ("value", "lse", "indices"):
            array = device.get(to_native(name, getattr(found, name)))
            np.testing.assert_array_equal(array, device.get(getattr(expected, name)))


def test_kernels_launch_on_torchs_current_stream(device, torch, monkeypatch):
    seen = []

    def watched(call):
        """Notes the stream of an operation that launches kernels."""

        def noted(*arguments):
            seen.append(device.cupy.cuda.get_current_stream().ptr)
            return call(*arguments)

        return noted

    monkeypatch.setattr(type(device.operations), "hash_keys", watched(type(device.operations).hash_keys))
    monkeypatch.setattr(type(device.engine), "attend", watched(type(device.engine).attend))
    query, keys, values, *_ = (tensor.cuda() for tensor in tensors(torch, "float32"))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        cache = METHOD.prepare(keys, values, key=KEY)
        METHOD.attend(query, cache, budget=BUDGET)
    assert seen == [stream.cuda_stream] * 2


def test_a_step_waits_for_the_work_before_it_on_the_stream(torch):
    query, keys, values, *_ = (tensor.cuda() for tensor in tensors(torch, "float32"))
    cache = METHOD.prepare(keys, values, key=KEY)
    expected = METHOD.attend(query, cache, budget=BUDGET)
    late = torch.full_like(query, float("nan"))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        late.copy_(query, non_blocking=True)
        found = METHOD.attend(late, cache, budget=BUDGET)
        value = found.value + 0
    stream.synchronize()
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(value, expected.value)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_plan_takes_and_returns_tensors_on_torchs_current_stream(device, torch, dtype):
    query, keys, values, new_keys, new_values = (tensor.cuda() for tensor in tensors(torch, dtype))
    cache = METHOD.prepare(keys, values, kv_start=[0, 7], kv_len=[300, 200], capacity=320, key=KEY)
    expected = METHOD.attend(query, cache.append(new_keys, new_values), budget=BUDGET)
    plan, late = device.plan(cache, query, BUDGET), torch.full_like(query, float("nan"))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        late.copy_(query, non_blocking=True)
        plan.append(new_keys, new_values)
        value, lse = plan.run(late)
        value, lse = value + 0, lse + 0
        plan.check()
    assert (value.dtype, value.device.type, lse.dtype) == (query.dtype, "cuda", torch.float32)
    assert torch.equal(torch.from_dlpack(plan.indices), expected.indices)
    assert_close(value.cpu().double(), expected.value.cpu().double(), dtype)
    assert_close(lse.cpu().double(), expected.lse.cpu().double(), "float32")
    with pytest.raises(TypeError, match="query is of type ndarray and the cache holds torch-cuda arrays: pass those"):
        plan.run(device.cupy.zeros((2, 8, 64), np.float32))


def planned(device, method, query, keys, values):
    """A plan over a cache of its own, with room for 20 more tokens, and the array of the slots that a step keeps."""
    key = {} if method.sample_type is None else {"key": KEY}
    cache = method.prepare(keys, values, kv_start=[0, 7], kv_len=[300, 200], capacity=320, **key)
    if "key" in method.takes:
        plan = device.santa_plan(cache, query)
        return plan, plan.draws
    plan = device.plan(cache, query, BUDGET)
    return plan, plan.indices


@pytest.mark.parametrize("sampler", ["phase_carried", "flash"])
def test_a_santa_plan_of_tensors_draws_as_that_of_cupy_arrays(device, torch, sampler):
    given = [tensor.cuda() for tensor in tensors(torch, "bfloat16")]
    native = [to_native("tensor", tensor) for tensor in given]
    method, late = Santa(64, sampler), torch.full_like(given[0], float("nan"))
    (ours, our_draws), (theirs, their_draws) = (planned(device, method, *one[:3]) for one in (given, native))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        late.copy_(given[0], non_blocking=True)
        ours.append(*given[3:])
        value, lse = ours.run(late)
        value, lse = value + 0, lse + 0
        ours.check()
    theirs.append(*native[3:])
    expected = theirs.run(native[0])
    theirs.check()
    assert (value.dtype, value.device.type, lse.dtype) == (torch.bfloat16, "cuda", torch.float32)
    np.testing.assert_array_equal(device.get(our_draws), device.get(their_draws))
    for found, right in zip((value, lse), expected, strict=True):
        np.testing.assert_array_equal(device.get(to_native("found", found)), device.get(right))


@pytest.mark.parametrize("method", [METHOD, Santa(64), Santa(64, "flash", 32)], ids=str)
def test_a_replayed_torch_graph_is_the_eager_steps(device, torch, method):
    query, keys, values, *tokens = (tensor.cuda() for tensor in tensors(torch, "bfloat16"))
    (captured, slots), (eager, expected) = (planned(device, method, query, keys, values) for _ in range(2))
    for plan in (captured, eager):
        plan.append(*tokens)
        plan.run(query)
    graph, seen = torch.cuda.CUDAGraph(), [device.get(slots)]
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        captured.append(*tokens)
        value, lse = captured.run(query)
    for _ in range(4):
        for tensor in (query, *tokens):
            tensor.normal_()
        graph.replay()
        captured.check()
        eager.append(*tokens)
        right = eager.run(query)
        eager.check()
        assert torch.equal(value, right[0])
        assert torch.equal(lse, right[1])
        np.testing.assert_array_equal(device.get(slots), device.get(expected))
        assert not any(np.array_equal(device.get(slots), earlier) for earlier in seen)
        seen.append(device.get(slots))


def test_a_tensor_that_requires_grad_is_refused(torch):
    _, keys, values, *_ = (tensor.cuda() for tensor in tensors(torch, "float32"))
    with pytest.raises(ValueError, match=r"keys requires grad.*pass keys.detach\(\)"):
        METHOD.prepare(keys.requires_grad_(), values, key=KEY)
