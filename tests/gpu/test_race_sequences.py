"""RACE's kernels of whole sequences on a GPU: float64's values and gradients, far addresses, graphs, torch tensors."""

from types import SimpleNamespace

import numpy as np
import pytest
from sequence_cases import (
    CASES,
    gradient_errors,
    in_8_bits,
    planted,
    prefix_for_suffix,
    run,
    value_error,
    without_token,
    without_total,
)

from socket_theory.core.hashing import SignHash

pytestmark = pytest.mark.gpu
LONG = 2**20
FAR_TOKENS, FAR_HEADS, FAR_DIM = 35157 * 128, 4, 128
"""More than 2^31 elements, of which the last head's begin before and end behind that."""
FAR_BYTES = 60 << 30
OUTPUTS = ("value", "d_query", "d_keys", "d_values", "d_beta")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_those_of_the_reference(device, case):
    passes = run(device.cupy, case)
    errors = gradient_errors(case, passes)
    assert max(errors.values()) <= 1, errors
    assert value_error(case, passes) <= 1


def sequences_of(device, heads, tokens, head_dim, dtype, causal):
    """Normal inputs [1, heads, tokens, head_dim], the gradient of outputs, and what runs over them."""
    from socket_gpu.race.inputs import SequenceInputs, empty, fill
    from socket_gpu.race.sequences import RaceSequences
    from socket_theory.core.checks import bfloat16

    element = bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    arrays = [empty((1, heads, tokens, head_dim), element) for _ in range(4)]
    for number, array in enumerate(arrays):
        fill(array, number)
    weights = SignHash(4, 4, head_dim).draw(device.key).weights.astype(np.float32)
    inputs = SequenceInputs(*arrays[:3], device.put(weights), device.put(np.float32(1)))
    given = inputs.query, inputs.keys, inputs.values, inputs.planes, inputs.beta
    return inputs, arrays[3], RaceSequences(*given, causal)


def run_both(passes, above):
    passes.forward()
    passes.backward(above)


def wrong_sums(device, inputs, above, passes):
    """Which sums, of "keys" or "queries", are nearer to those without a token than to the right ones in some tile.

    A token's features add up to the number of tables, so the sums over features are known without them. A tile's sums
    are the steps between those of the tiles before each, or behind each.
    """
    from socket_gpu.race.exact import Head, exact_values, wide
    from socket_gpu.race.gate import law_of

    cupy = device.cupy
    head = Head.of(0, inputs.query, inputs.keys, inputs.values, above, passes.causal)
    values, gradient = wide(inputs.values[0, 0]), wide(above[0, 0])
    asked, held = (cupy.empty((len(values), values.shape[1] + 1)) for _ in range(2))
    held[:, 0], held[:, 1:] = 1, values
    for span, (outputs, _), (total,) in exact_values(head, law_of(inputs)):
        asked[span, 0], asked[span, 1:] = -(gradient[span] * outputs[0]).sum(axis=1), gradient[span]
        asked[span] /= total[0]

    def is_wrong(sums, tokens, behind):
        over_features = [array[0].astype(np.float64).sum(axis=1) for array in (sums.mass, sums.weighted)]
        places = cupy.concatenate([over_features[0][:, None], over_features[1]], axis=1)
        if behind:  # the sums of all stand last and belong before the first
            places = cupy.concatenate([places[-1:], places[:-1]])
        tiles = inputs.planes.shape[0] * tokens.reshape(sums.tiles, sums.tile, -1)
        steps = (-1 if behind else 1) * cupy.diff(places, axis=0)
        off = abs(steps - tiles.sum(axis=1))
        return not bool((off.max(axis=1) < abs(tiles).max(axis=2).min(axis=1) / 2).all())

    found = {"keys": is_wrong(passes.sums, held, False), "queries": is_wrong(passes.of_queries, asked, True)}
    return {name for name, wrong in found.items() if wrong}


def failing(device, inputs, above, passes):
    """The sums and the outputs of a run that are wrong, as far as the first of these."""
    from socket_gpu.bench.gate import GateError
    from socket_gpu.race.gate import poison_outputs, require_exact

    poison_outputs(passes)
    run_both(passes, above)
    wrong = wrong_sums(device, inputs, above, passes)
    try:
        require_exact(passes, inputs, above, passes.causal, np.array([], int))
    except GateError as error:
        wrong.add(str(error))
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_million_tokens_have_the_values_gradients_and_sums_of_float64(device, dtype, causal):
    inputs, above, passes = sequences_of(device, 1, LONG, 64, dtype, causal)
    assert failing(device, inputs, above, passes) == set()


FAULTS = {
    "key": (without_token(LONG // 2, of_queries=False), "keys"),
    "query": (without_token(LONG // 2, of_queries=True), "queries"),
    "suffix": (prefix_for_suffix, "gradient of the"),
    "total": (without_total, "gradient of the"),
    "8 bits": (in_8_bits, "gradient of the"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_among_a_million_tokens_is_seen(device, fault):
    plant, seen = FAULTS[fault]
    inputs, above, passes = sequences_of(device, 1, LONG, 64, "bfloat16", True)
    with planted(plant):
        wrong = failing(device, inputs, above, passes)
    assert any(seen in name for name in wrong), wrong


@pytest.mark.slow
def test_addresses_far_out_are_those_of_the_last_head(device):
    from socket_gpu.race.gate import require_exact
    from socket_gpu.race.inputs import SequenceInputs

    pool = device.cupy.get_default_memory_pool()
    pool.free_all_blocks()
    if device.cupy.cuda.Device().mem_info[0] < FAR_BYTES:
        pytest.skip(f"this device has less than {FAR_BYTES >> 30} GiB of free memory.")
    inputs, above, passes = sequences_of(device, FAR_HEADS, FAR_TOKENS, FAR_DIM, "bfloat16", True)
    assert inputs.query.size > 2**31
    run_both(passes, above)
    last = slice(FAR_HEADS - 1, FAR_HEADS)
    found = SimpleNamespace(**{name: getattr(passes, name)[:, last] for name in OUTPUTS[:-1]})
    heads = (array[:, last] for array in (inputs.query, inputs.keys, inputs.values))
    own = SequenceInputs(*heads, inputs.planes, inputs.beta)
    require_exact(found, own, above[:, last], True, np.array([], int))
    del inputs, above, passes, found, own
    pool.free_all_blocks()


@pytest.mark.parametrize("causal", [False, True])
def test_a_replay_reads_what_was_written_since_and_repeats_its_bits(device, causal):
    from socket_gpu.race.gate import poison_outputs
    from socket_gpu.race.inputs import fill

    inputs, above, passes = sequences_of(device, 2, 1000, 128, "bfloat16", causal)
    run_both(passes, above)
    replay = device.captured(lambda: run_both(passes, above))
    results = []
    for run_once in (lambda: run_both(passes, above), replay, replay):
        if len(results) == 2:
            for number, array in enumerate((inputs.query, inputs.keys, inputs.values, above)):
                fill(array, 10 + number)
            inputs.beta[...] = 2
        poison_outputs(passes)
        run_once()
        results.append([device.get(getattr(passes, name)).tobytes() for name in OUTPUTS])
    run_both(passes, above)
    assert results[0] == results[1]
    assert all(before != after for before, after in zip(results[1], results[2], strict=True))
    assert results[2] == [device.get(getattr(passes, name)).tobytes() for name in OUTPUTS]


@pytest.fixture(scope="module")
def torch(device):
    torch = pytest.importorskip("torch", reason="pip install 'socket-theory[torch]'")
    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA device: install torch with CUDA.")
    return torch


def tensors(torch, device, seed=0, tokens=1000):
    """Queries of 4 heads as views of [B, N, H, D], keys and values of 2, planes and beta, on the GPU."""
    draw = torch.Generator("cuda").manual_seed(seed)
    query = torch.randn(2, tokens, 4, 64, generator=draw, device="cuda").transpose(1, 2)
    keys, values = (torch.randn(2, 2, tokens, 64, generator=draw, device="cuda") for _ in range(2))
    planes = torch.tensor(SignHash(4, 4, 64).draw(device.key).weights, device="cuda").float()
    leaves = [heads.bfloat16().requires_grad_() for heads in (query, keys, values)]
    return [*leaves, planes, torch.tensor(1.5, device="cuda", requires_grad=True)]


def differentiated(torch, given, causal):
    from socket_theory.integrations.torch_layers import race_attention

    value = race_attention(*given, causal)
    query, keys, values, _, beta = given
    return [value.detach(), *torch.autograd.grad(value, (query, keys, values, beta), torch.ones_like(value))]


@pytest.mark.parametrize("causal", [False, True])
def test_torch_gives_the_kernels_bits_on_any_stream(torch, device, causal):
    from socket_gpu.race.sequences import RaceSequences
    from socket_theory.core.array_types import to_native

    given = tensors(torch, device)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = differentiated(torch, given, causal)
    stream.synchronize()
    native = [to_native("a tensor", tensor.detach()) for tensor in given]
    passes = RaceSequences(*native, causal)
    run_both(passes, to_native("above", torch.ones_like(found[0])))
    again = differentiated(torch, given, causal)
    for name, tensor, repeated in zip(OUTPUTS, found, again, strict=True):
        assert device.get(to_native(name, tensor)).tobytes() == device.get(getattr(passes, name)).tobytes(), name
        assert torch.equal(tensor, repeated), name


@pytest.mark.parametrize("causal", [False, True])
def test_a_graph_of_torch_replays_with_new_inputs(torch, device, causal):
    given = tensors(torch, device)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            differentiated(torch, given, causal)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = differentiated(torch, given, causal)
    with torch.no_grad():
        for tensor, new in zip(given, tensors(torch, device, seed=1), strict=True):
            tensor.copy_(new)
    torch.empty(1 << 28, device="cuda").fill_(7)
    graph.replay()
    for tensor, expected in zip(found, differentiated(torch, given, causal), strict=True):
        assert torch.equal(tensor, expected)


def test_torch_compiles_and_maps_over_sequences(torch, device):
    from socket_theory.integrations.torch_layers import RaceAttention, race_attention

    layer = RaceAttention(64, key=device.key, causal=True).cuda()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for tokens in (200, 300):
        heads = tensors(torch, device, tokens=tokens)[:3]
        assert torch.equal(compiled(*heads), layer(*heads))
    query, keys, values, planes, beta = (tensor.detach() for tensor in tensors(torch, device, tokens=100))
    mapped = torch.func.vmap(lambda *three: race_attention(*three, planes, beta, True))(query, keys, values)
    assert torch.equal(mapped, race_attention(query, keys, values, planes, beta, True))
