"""What the gate looks at in a SANTA step: status and step counts, then scores, draws, lse and value of some rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socket_gpu.bench.gate import GateError, poison, require_value, sampled_rows
from socket_gpu.santa.draw_gate import DrawLaw, require_draws, require_exact_scores, require_lse
from socket_theory.core.attention import attention_logits
from socket_theory.core.rng import uniform

Array = NDArray[Any]


def checked_run(plan: Any, query: Any, run: Callable[[], Any]) -> None:
    """Poison what `plan` holds, let `run` take one step of `query` [B, Hq, D], and check what it left.

    Raises
    ------
    GateError
        Naming the first sequence and head that is wrong.
    """
    host = plan.cache.backend.to_host
    before = host(plan.steps).copy()
    poison(plan.scores, plan.draws, plan.value, plan.lse)
    run()
    try:
        plan.check()
    except RuntimeError as error:
        raise GateError(str(error)) from error
    require_single_steps([before, host(plan.steps)])
    queries, draws, value, lse = (host(array) for array in (query, plan.draws, plan.value, plan.lse))
    if not (np.isfinite(value.astype(np.float32)).all() and np.isfinite(lse).all()):
        raise GateError("the output holds NaN or infinity.")
    for sequence, head in sampled_rows(*queries.shape[:2]):
        row = sequence * queries.shape[1] + head
        found = draws[sequence, head], value[sequence, head], float(lse[sequence, head])
        _check_row(plan, queries[sequence, head], sequence, head, int(before[row]), *found)


def require_single_steps(counts: list[Array]) -> None:
    """GateError unless every head's count of steps [B * Hq] grows by one from each array to the next."""
    for before, after in pairwise(counts):
        if not np.array_equal(after, before + 1):
            raise GateError("a run does not count as one step of every head, so its offsets are not fresh.")


def _check_row(
    plan: Any, query: Array, sequence: int, head: int, step: int, draws: Array, value: Array, lse: float
) -> None:
    """Scores against exact ones, draws against those of the plan's scores, value against the rows drawn."""
    cache, method, name = plan.cache, plan.method, f"sequence {sequence}, query head {head}"
    host, row = cache.backend.to_host, sequence * plan.value.shape[1] + head
    rows = cache.rows.read(sequence, head // plan.group, slice(None))
    keys, values = (host(array) for array in rows)
    exact = attention_logits(query, keys, plan.sm_scale)
    scores = math.log(2) * host(plan.scores[row])[: len(keys)].astype(np.float64)
    magnitudes = np.abs(keys.astype(np.float32)) @ np.abs(query.astype(np.float32))
    require_exact_scores(name, scores, exact, plan.sm_scale * keys.shape[1] * magnitudes)
    uniforms = uniform(plan.key, (row << 32) + np.arange(method.num_uniforms(len(keys))), step)
    law = DrawLaw.of(method, scores, uniforms, plan.shape.tile_len)
    require_draws(name, draws, law)
    require_lse(name, lse, float(exact.max() + np.log(np.exp(exact - exact.max()).sum())))
    drawn = values[draws[: len(law.goals)]].astype(np.float64)
    require_value(name, value, law.weights @ drawn)
