"""A decode step planned once and run many times: no allocation, no host synchronisation, safe to capture in a graph."""

from __future__ import annotations

from typing import Any

from socket_gpu.core.backend import CupyBackend
from socket_gpu.core.select_plan import SelectPlan
from socket_gpu.socket_lsh.scorer import CodeScorer, collision_of
from socket_theory.core.cache import Cache
from socket_theory.core.selection import Budget


class DecodePlan(SelectPlan):
    """SOCKET's or hard LSH's decode step over one cache.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        For another method, which may score in a way of its own, and as SelectPlan.
    """

    scorer: CodeScorer

    def __init__(
        self, cache: Cache, *, num_qo_heads: int, budget: Budget, sm_scale: float | None = None, out_dtype: Any = None
    ) -> None:
        CupyBackend()
        collision_of(cache.method)
        super().__init__(
            cache, CodeScorer.of, num_qo_heads=num_qo_heads, budget=budget, sm_scale=sm_scale, out_dtype=out_dtype
        )


plan = DecodePlan
