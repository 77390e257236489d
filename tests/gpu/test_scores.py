"""Codes and scores against the reference on identical planes, and what a step captures from end to end."""

import numpy as np
import pytest

from socket_theory import Budget, HardLSH, Key, Socket
from socket_theory.core.attention import softmax_attention
from socket_theory.core.checks import bfloat16
from socket_theory.core.hashing import hash_keys, project_query
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.core.rows import DenseRows
from socket_theory.socket_lsh.operations import NumpyOperations
from socket_theory.testing import assert_close, relative_rms, rounding_margin

pytestmark = pytest.mark.gpu
REFERENCE, TOKENS, KV_HEADS = NumpyOperations(), 4096, 2
WHOLE = [(0, TOKENS)]
# RMS error over tokens in standard deviations of the scores.
ALLOWED = {"bytes": 2e-2, "float": 1e-4}

# Method, head_dim, query heads a KV head, and the look-up entries that the range rule gives them.
RULE = [
    (Socket(), 128, 4, "bytes"),
    (Socket(), 128, 1, "float"),
    (Socket(query_map="tanh"), 128, 4, "float"),
    (Socket(num_planes=16, temperature=0.05), 128, 4, "float"),
    (Socket(num_planes=16, temperature=0.05, query_map="tanh"), 128, 4, "float"),
]
# Byte steps that fall badly on the few values a saturated query has.
COARSE = [(Socket(num_planes=6), 128, 4), (Socket(num_planes=3), 256, 4), (Socket(num_planes=8), 64, 2)]


def coded_problem(device, method, head_dim, group):
    """A problem over one whole sequence, and its keys' codes by the reference."""
    problem = device.problem(
        method, head_dim=head_dim, num_qo_heads=KV_HEADS * group, num_kv_heads=KV_HEADS, slots=TOKENS, spans=WHOLE
    )
    return problem, REFERENCE.hash_keys(problem.keys, problem.spans, problem.planes, None)


def score_errors(device, method, problem, codes, query):
    """The RMS error over tokens of every query head, in standard deviations of its scores."""
    from socket_gpu.socket_lsh.codes import CodeLayout

    packed = device.put(CodeLayout(method.num_tables, method.num_planes).pack(codes))
    settings = problem.spans, problem.planes, method.query_map, method.temperature
    expected = REFERENCE.soft_scores(query, codes, *settings).astype(np.float64)
    found = device.get(device.operations.soft_scores(device.put(query), packed, *settings))[..., :TOKENS]
    return np.sqrt(np.mean((found - expected) ** 2, axis=-1)) / expected.std(axis=-1)


@pytest.mark.parametrize(("method", "head_dim", "group", "entry"), RULE, ids=str)
def test_the_range_rule_is_as_documented(device, method, head_dim, group, entry):
    assert device.entry(method, head_dim, group) == entry


@pytest.mark.parametrize(("method", "head_dim", "group"), [*(row[:3] for row in RULE), *COARSE], ids=str)
def test_scores_are_the_references_on_identical_codes(device, method, head_dim, group):
    allowed = ALLOWED[device.entry(method, head_dim, group)]
    problem, codes = coded_problem(device, method, head_dim, group)
    for scale in (0.05, 1, 20):
        query = (problem.query * scale).astype(np.float32)
        assert score_errors(device, method, problem, codes, query).max() <= allowed, scale


@pytest.mark.parametrize(("planes", "head_dim", "group"), [(10, 128, 4), (8, 64, 2)])
def test_byte_tables_are_precise_enough_up_to_the_edge_of_their_range(device, planes, head_dim, group):
    coarse, fine = 1e-3, 10.0
    for _ in range(40):
        middle = np.sqrt(coarse * fine)
        inside = device.entry(Socket(num_planes=planes, temperature=middle), head_dim, group) == "bytes"
        coarse, fine = (coarse, middle) if inside else (middle, fine)
    method = Socket(num_planes=planes, temperature=fine)
    assert device.entry(method, head_dim, group) == "bytes"
    assert device.entry(Socket(num_planes=planes, temperature=coarse), head_dim, group) == "float"
    problem, codes = coded_problem(device, method, head_dim, group)
    assert score_errors(device, method, problem, codes, problem.query).max() <= ALLOWED["bytes"]


@pytest.mark.parametrize("shape", [(10, 60, 4), (16, 7, 1), (4, 33, 7)], ids=str)
def test_hard_scores_count_matches_exactly(device, shape):
    from socket_gpu.socket_lsh.codes import CodeLayout

    planes, tables, group = shape
    method = HardLSH(num_planes=planes, num_tables=tables)
    problem, codes = coded_problem(device, method, 64, group)
    # Every token repeats the query's own buckets in a known share of the tables.
    buckets = ((project_query(problem.query.astype(np.float64), problem.planes) >= 0) << np.arange(planes)).sum(-1)
    own = buckets.reshape(1, KV_HEADS, group, tables)[:, :, 0, :, None].astype(np.uint16)
    codes = np.where(np.arange(TOKENS) % (tables + 1) > np.arange(tables)[:, None], own, codes)
    found = device.operations.hard_scores(
        device.put(problem.query),
        device.put(CodeLayout(tables, planes).pack(codes)),
        problem.spans,
        problem.planes,
    )
    expected = REFERENCE.hard_scores(problem.query, codes, problem.spans, problem.planes)
    np.testing.assert_array_equal(np.rint(device.get(found)[..., :TOKENS] * tables), np.rint(expected * tables))
    assert relative_rms(device.get(found)[..., :TOKENS], expected) <= 1e-6


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("centered", [False, True])
def test_codes_are_the_references_outside_the_rounding_margin(device, dtype, centered):
    from socket_gpu.socket_lsh.codes import CodeLayout

    method, element = Socket(), bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    problem = device.problem(method, num_kv_heads=KV_HEADS, slots=2000, spans=[(0, 2000)], dtype=element)
    center = np.full((1, KV_HEADS, 64), 0.5, element) if centered else None
    words = device.operations.hash_keys(
        device.put(problem.keys), problem.spans, problem.planes, device.put(center) if centered else None
    )
    codes = CodeLayout(60, 10).unpack(device.get(words), 2000)
    for head in range(KV_HEADS):
        offset = center[0, head].astype(np.float64) if centered else 0.0
        certain = rounding_margin(problem.keys[0, head], problem.planes, offset)
        differ = codes[0, head] ^ hash_keys(problem.keys[0, head], problem.planes, offset if centered else None)
        assert not ((differ[:, None] >> np.arange(10, dtype=np.uint16)[:, None] & 1).astype(bool) & certain).any()
        assert certain.mean() > 0.999


def captured(query, keys, values, lse):
    """The exact softmax mass of the kept tokens, [B, Hq], from their lse."""
    group, mass = query.shape[1] // keys.shape[1], np.empty(query.shape[:2])
    for row, head in np.ndindex(*mass.shape):
        dense = softmax_attention(query[row, head], keys[row, head // group], values[row, head // group])
        mass[row, head] = np.exp(lse[row, head] - dense.lse)
    return mass


def test_a_step_captures_the_references_mass_from_end_to_end(device):
    method, budget = Socket.as_released(), Budget(fraction=1 / 33, sink=16, window=16)
    problem = device.problem(
        method, head_dim=128, num_qo_heads=16, num_kv_heads=4, slots=TOKENS, spans=WHOLE * 2, dtype=bfloat16()
    )
    arrays = problem.query, problem.keys, problem.values
    truth = method.attend(problem.query, method.prepare(*arrays[1:], sample=problem.planes), budget=budget)
    step = method.attend(device.put(problem.query), device.prepare(method, problem), budget=budget)
    expected, found = captured(*arrays, truth.lse), captured(*arrays, device.get(step.lse))
    assert expected.mean() > 0.1
    assert abs(found.mean() - expected.mean()) <= 2e-3
    assert np.abs(found - expected).mean() <= 2e-3
    indices = device.get(step.indices)
    rows = DenseRows(*arrays[1:], problem.spans, NumpyBackend())
    value, _ = NumpyBackend().attend(problem.query, rows, indices, 1 / np.sqrt(128))
    assert_close(device.get(step.value), value, "bfloat16")
    fewer = Socket(num_tables=30, value_weight=True)
    worse = fewer.attend(problem.query, fewer.prepare(*arrays[1:], key=Key.from_seed(5)), budget=budget)
    assert np.abs(captured(*arrays, worse.lse) - expected).mean() > 4e-3
