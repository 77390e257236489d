"""Random shapes: each stage of a planned and of an eager step against the reference on what the stage before gave."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from socket_theory import Budget, HardLSH, Socket
from socket_theory.core.checks import bfloat16
from socket_theory.core.hashing import apply_query_map, hash_keys, project_query
from socket_theory.core.numpy_backend import NumpyBackend
from socket_theory.core.rows import DenseRows
from socket_theory.core.selection import pad_rows, select_tokens, sum_group
from socket_theory.core.step import Step
from socket_theory.socket_lsh.operations import NumpyOperations
from socket_theory.testing import assert_close, rounding_margin

pytestmark = pytest.mark.gpu
REFERENCE, OWN = NumpyBackend(), NumpyOperations()

# Every row compiles a few kernels, so these are few, and what a launch may vary freely is drawn by Hypothesis.
# Method, head_dim, dtype, query heads a KV head, group of the budget.
KERNELS = [
    (Socket.as_released(), 128, "bfloat16", 4, "query_head"),
    (Socket(num_planes=8, value_weight=True), 64, "float32", 2, "kv_head"),
    (Socket(num_planes=16, num_tables=7, temperature=0.05), 64, "float16", 3, "query_head"),
    (Socket(num_planes=1, num_tables=40, center_keys=True), 128, "float32", 8, "kv_head"),
    (Socket(num_planes=3, num_tables=130, query_map="linear", temperature=3.0), 256, "bfloat16", 1, "query_head"),
    (Socket(num_planes=11, num_tables=70), 64, "float16", 5, "kv_head"),
    (Socket(num_planes=5, num_tables=1), 16, "float64", 6, "query_head"),
    (HardLSH(num_planes=4, num_tables=33), 128, "float32", 7, "query_head"),
]
# A share of the profile's examples for every row.
EXAMPLES = max(5, settings.default.max_examples // 4)


@st.composite
def budgets(draw, slots):
    sink, window = draw(st.integers(0, 9)), draw(st.integers(0, 40))
    if draw(st.booleans()):
        return {"fraction": draw(st.floats(1e-6, 1)), "sink": sink, "window": window}
    return {"tokens": max(1, sink + window + draw(st.integers(0, slots))), "sink": sink, "window": window}


@st.composite
def shapes(draw):
    heads = draw(st.integers(1, 4))
    slots = draw(st.one_of(st.integers(1, 70), st.integers(71, 3000 // heads)))
    return {
        "batch": draw(st.integers(1, 3)),
        "num_kv_heads": heads,
        "slots": slots,
        "seed": draw(st.integers(0, 2**32)),
        "spare": draw(st.integers(0, 40)),
        "budget": draw(budgets(slots)),
    }


ONE_TOKEN = {"batch": 1, "num_kv_heads": 1, "slots": 1, "seed": 0, "spare": 0, "budget": {"tokens": 1}}


@pytest.mark.parametrize("kernels", KERNELS, ids=str)
@settings(max_examples=EXAMPLES)
@given(shape=shapes())
@example(shape=ONE_TOKEN)
def test_every_stage_is_the_references(device, kernels, shape):
    method, head_dim, dtype, group, share = kernels
    shape = dict(shape)
    spare, budget = shape.pop("spare"), Budget(**shape.pop("budget"), per=share)
    element = bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    heads = shape["num_kv_heads"] * group
    problem = device.problem(method, head_dim=head_dim, num_qo_heads=heads, dtype=element, **shape)
    cache = device.prepare(method, problem, capacity=shape["slots"] + spare)
    codes = index_is_the_references(device, problem, method, cache)
    plan, query = device.plan(cache, problem.query, budget), device.put(problem.query)
    plan.run(query)
    plan.check()
    results = [plan.totals, plan.indices, plan.value, plan.lse]
    totals, indices, *output = (device.get(array) for array in results)
    totals_are_the_references(device, problem, method, codes, totals)
    np.testing.assert_array_equal(indices, selected(totals, problem.spans, budget, indices.shape[-1]))
    np.testing.assert_array_equal(device.get(plan.lengths), (indices >= 0).sum(axis=-1))
    if share == "kv_head":
        indices = np.repeat(indices, group, axis=1)
    output_is_the_references(problem, indices, *output)

    eager = method.attend(query, cache, budget=budget)
    scores = device.get(method.scores(Step(query, cache, 1.0)))
    indices = device.get(eager.indices)
    np.testing.assert_array_equal(indices, REFERENCE.select(scores, problem.spans, budget, shape["num_kv_heads"]))
    output_is_the_references(problem, indices, device.get(eager.value), device.get(eager.lse))


def index_is_the_references(device, problem, method, cache):
    """Codes equal outside the rounding margin, norms everywhere. Returns the GPU's codes in the reference's form."""
    from socket_gpu.socket_lsh.codes import CodeLayout

    layout, slots = CodeLayout(method.num_tables, method.num_planes), problem.keys.shape[2]
    codes = layout.unpack(device.get(cache.index.arrays["codes"]), slots)
    frozen = cache.index.frozen
    centers = device.get(frozen["center"]) if "center" in frozen else np.zeros(problem.keys.shape[:2])
    planes = np.arange(method.num_planes, dtype=np.uint16)[:, None]
    for row, head in np.ndindex(*problem.keys.shape[:2]):
        start, length = problem.spans[row]
        keys, center = problem.keys[row, head, start : start + length], centers[row, head].astype(np.float64)
        differ = codes[row, head, :, start : start + length] ^ hash_keys(keys, problem.planes, center)
        certain = rounding_margin(keys, problem.planes, center)
        assert not ((differ[:, None] >> planes & 1).astype(bool) & certain).any()
    if "value_norms" in cache.index.arrays:
        norms = device.get(cache.index.arrays["value_norms"])[..., :slots]
        np.testing.assert_array_equal(valid(norms, problem.spans), valid(norms_of(problem), problem.spans))
    return codes


def norms_of(problem):
    return OWN.value_norms(problem.values, problem.spans)


def valid(array, spans):
    """The entries of [B, heads, N...] at valid tokens, in one row."""
    return np.concatenate([array[row, :, a : a + n].ravel() for row, (a, n) in enumerate(spans)])


def totals_are_the_references(device, problem, method, codes, totals):
    """On the GPU's own codes: no token is off by more than five times the RMS error that its look-up entries allow."""
    spans, (_, heads, slots) = problem.spans, problem.keys.shape[:3]
    expected, allowed = SCORES[type(method)](device, problem, method, codes)
    if totals.shape[1] < expected.shape[1]:
        expected = np.stack([sum_group(row, heads) for row in expected])
        allowed = allowed.reshape(len(allowed), heads, -1).sum(axis=-1)
    found = valid(totals[..., :slots], spans)
    if getattr(method, "value_weight", False):
        found = found / valid(np.repeat(norms_of(problem), totals.shape[1] // heads, axis=1), spans)
    allowed = valid(np.repeat(allowed[..., None], slots, axis=-1), spans)
    assert (np.abs(found - valid(expected, spans)) <= allowed).all()


def hard_scores(device, problem, method, codes):
    """Scores [B, Hq, N], and how far a total may be from its score, [B, Hq]."""
    return OWN.hard_scores(problem.query, codes, problem.spans, problem.planes), doubtful_share(problem) + 1e-6


def soft_scores(device, problem, method, codes):
    """Scores [B, Hq, N], and how far a total may be from its score, [B, Hq]."""
    planes = problem.planes
    scores = OWN.soft_scores(problem.query, codes, problem.spans, planes, method.query_map, method.temperature)
    entry = device.entry(method, planes.head_dim, scores.shape[1] // problem.keys.shape[1])
    return scores, 5 * (1e-4 if entry == "float" else 2e-2) * score_deviation(problem, method)


SCORES = {HardLSH: hard_scores, Socket: soft_scores}


def score_deviation(problem, method):
    """The standard deviation of a score over codes of independent fair bits, [B, Hq]."""
    projections = project_query(problem.query.astype(np.float64), problem.planes)
    mapped = apply_query_map(projections, method.query_map, problem.planes.head_dim)
    agree = 1 / (1 + np.exp(-2 * mapped / method.temperature))
    square = ((agree**2 + (1 - agree) ** 2) / 2).prod(axis=-1)
    return np.sqrt((square - 4.0**-method.num_planes).sum(axis=-1)) / method.num_tables


def doubtful_share(problem):
    """The share of tables in which rounding may decide a bit of the query, [B, Hq]."""
    query, weights = problem.query.astype(np.float64), problem.planes.weights
    lengths = np.linalg.norm(query, axis=-1)[..., None, None] * np.linalg.norm(weights, axis=-1)
    margin = problem.planes.head_dim * 2.0**-23 * lengths
    return (np.abs(project_query(query, problem.planes)) <= margin).any(axis=-1).mean(axis=-1)


def selected(totals, spans, budget, width):
    """The reference's selection of every row of [B, rows, N], as wide as the plan's."""
    rows = [
        select_tokens(scores[start : start + length], budget) + np.int32(start)
        for sequence, (start, length) in zip(totals, spans, strict=True)
        for scores in sequence
    ]
    padded = pad_rows([*rows, np.full(width, -1, np.int32)])[:-1]
    return padded.reshape(*totals.shape[:2], -1)


def output_is_the_references(problem, indices, value, lse):
    sm_scale = 1 / np.sqrt(problem.query.shape[-1])
    rows = DenseRows(problem.keys, problem.values, problem.spans, REFERENCE)
    expected = REFERENCE.attend(problem.query, rows, indices, sm_scale)
    assert_close(value, expected[0], problem.query.dtype)
    assert_close(np.exp(lse - expected[1]), np.ones(lse.shape), problem.query.dtype)
