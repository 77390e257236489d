"""What the gate looks at in a planned step: the index, then scores, selection and output of what was last run.

The selection is checked for every row against the backend's selection from all scores, everything else on sampled
rows and tokens against the reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_gpu.bench import gate
from socket_gpu.bench.gate import sampled_rows
from socket_gpu.socket_lsh.codes import LANES, CodeLayout
from socket_gpu.socket_lsh.index_gate import require_codes, require_norms
from socket_theory.core.attention import softmax_attention
from socket_theory.core.cache import Cache
from socket_theory.socket_lsh.operations import NumpyOperations

BLOCKS = 128


def sampled_blocks(slots: int) -> NDArray[np.int64]:
    """Blocks of 32 slots spread evenly from the first to the last full one."""
    return np.unique(np.linspace(0, slots // LANES - 1, BLOCKS).astype(np.int64))


def check_index(cache: Cache) -> None:
    """Codes, and norms where the method has them, of sampled tokens of sampled KV heads.

    Raises
    ------
    GateError
        Naming the first sequence and head that is wrong.
    """
    for sequence, head in sampled_rows(*cache.rows.shape[:2]):
        name = f"sequence {sequence}, KV head {head}"
        slots, codes, norms = _sampled_index(cache, sequence, head)
        keys, values = (_host(cache, array) for array in cache.rows.read(sequence, head, slots))
        require_codes(name, codes, keys, cache.sample)
        if norms is not None:
            require_norms(name, norms, values)


def check_step(plan: Any, query: Any) -> None:
    """Scores, selection and value that `plan` holds, as those of `query` [B, Hq, D].

    Raises
    ------
    GateError
        Naming the first sequence and head that is wrong.
    """
    cache, budget = plan.cache, plan.budget
    try:
        plan.check()
    except RuntimeError as error:
        raise gate.GateError(str(error)) from error
    indices, value, queries = (_host(cache, array) for array in (plan.indices, plan.value, query))
    again = cache.backend.select(plan.scores, cache.kv_range, budget, cache.rows.shape[1])
    if not np.array_equal(indices, _host(cache, again)):
        raise gate.GateError("the planned selection differs from the backend's selection of the same scores.")
    if not np.isfinite(value.astype(np.float32)).all():
        raise gate.GateError("the output holds NaN or infinity.")
    group = queries.shape[1] // cache.rows.shape[1]
    for sequence, head in sampled_rows(*queries.shape[:2]):
        name, kv_head = f"sequence {sequence}, query head {head}", head // group
        kept, one = indices[sequence, head], queries[sequence, head]
        scores = _host(cache, plan.scores[sequence, head])[: cache.kv_range[sequence, 1]]
        slots, codes, norms = _sampled_index(cache, sequence, kv_head)
        gate.require_scores(name, scores[slots], _reference_scores(cache, one, codes, norms))
        gate.require_selection(name, kept, scores, budget)
        keys, values = (_host(cache, array) for array in cache.rows.read(sequence, kv_head, kept))
        gate.require_value(name, value[sequence, head], softmax_attention(one, keys, values).value)


def _host(cache: Cache, array: Any) -> Any:
    return cache.backend.to_host(array)


def _sampled_index(cache: Cache, sequence: int, head: int) -> tuple[Any, Any, Any]:
    """Sampled slots [n] of a KV head, their codes [L, n], and their norms [n] if the index has any."""
    layout = CodeLayout(cache.sample.num_tables, cache.sample.num_planes)
    blocks = sampled_blocks(int(cache.kv_range[sequence, 1]))
    slots = (blocks[:, None] * LANES + np.arange(LANES)).reshape(-1)
    codes = layout.unpack(_host(cache, cache.index.arrays["codes"][sequence, head])[blocks], len(slots))
    if "value_norms" not in cache.index.arrays:
        return slots, codes, None
    return slots, codes, _host(cache, cache.index.arrays["value_norms"][sequence, head])[slots]


def _reference_scores(cache: Cache, query: Any, codes: Any, norms: Any) -> Any:
    method: Any = cache.method
    reference, spans = NumpyOperations(), np.array([[0, codes.shape[1]]])
    settings = (spans, cache.sample, method.query_map, method.temperature)
    scores = reference.soft_scores(query[None, None], codes[None, None], *settings)
    return (scores if norms is None else reference.weigh_scores(scores, norms[None, None]))[0, 0]
