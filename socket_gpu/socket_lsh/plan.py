"""A decode step planned once and run many times: no allocation, no host synchronisation, safe to capture in a graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from socket_gpu.core import attend, select_tokens
from socket_gpu.core._launch import settle
from socket_gpu.core.backend import CupyBackend
from socket_gpu.core.plan import PlannedStep
from socket_gpu.socket_lsh import hash_keys, score
from socket_gpu.socket_lsh.codes import CodeLayout
from socket_theory.core.array_types import callers_stream
from socket_theory.core.cache import Cache
from socket_theory.core.selection import Budget, require_budget
from socket_theory.socket_lsh.estimator import Socket
from socket_theory.socket_lsh.hard_lsh import HardLSH


class DecodePlan(PlannedStep):
    """SOCKET's or hard LSH's decode step over one cache.

    `run(query)` writes `value` [B, Hq, D], `lse` [B, Hq] (natural log), `indices` int32 [B, rows, K] and `lengths`
    [B, rows]; rows are query heads, or KV heads for per="kv_head". `append(keys, values)` adds tokens in place and
    lengthens the spans on the device, so both may be captured in one CUDA graph and replayed. Kernels are compiled in
    the first call of each: make one before capturing. The first step, and a head whose scores fall far below the last
    step's, selects from all scores, which takes longer; `searches` counts how often each row did. Beside the outputs a
    plan holds a score of 4 bytes a token and row, and 8 bytes for each of up to 32 survivors a kept token and row.

    Raises
    ------
    TypeError, ValueError
        For a method without GPU kernels, no budget, a head_dim or a number of heads that attention has no kernels for,
        and as PlannedStep.
    RuntimeError
        Naming what is missing for a GPU: the package CuPy, the driver, a device or the CUDA headers.
    """

    def __init__(
        self, cache: Cache, *, num_qo_heads: int, budget: Budget, sm_scale: float | None = None, out_dtype: Any = None
    ) -> None:
        cupy, method = CupyBackend().cupy, cache.method
        if not isinstance(method, Socket | HardLSH):
            raise TypeError(f"{type(method).__name__} has no GPU decode plan: pass a cache of Socket or HardLSH.")
        super().__init__(cache, num_qo_heads, sm_scale, out_dtype)
        self.method, self.budget = method, require_budget(budget)
        batch, heads, _, dim = cache.keys.shape
        self.layout = CodeLayout(method.num_tables, method.num_planes)
        self.fragments, self.matrix = hash_keys.plane_fragments(cache.sample), hash_keys.hash_matrix(cache.sample)
        center, arrays = cache.index.frozen.get("center"), cache.index.arrays
        self.center = None if center is None else cupy.ascontiguousarray(center.astype(np.float64))
        self.codes, self.norms = arrays["codes"], arrays.get("value_norms")
        self.collision = (
            score.Collision(method.query_map, method.temperature)
            if isinstance(method, Socket)
            else score.Collision("hard")
        )
        rounds = score.passes(self.collision.entry(self.layout, dim, self.group), self.group)
        shared = budget.per == "kv_head"
        self.fused = not shared or (rounds == 1 and self.layout.rings <= score.MOST_RINGS)
        rows = heads if shared else num_qo_heads
        self.scores = cupy.empty((batch, rows if self.fused else num_qo_heads, self.codes.shape[2] * 32), np.float32)
        self.totals = self.scores if self.fused else cupy.empty((batch, rows, self.scores.shape[2]), np.float32)
        kept = budget.kept(self.slots)
        self.survivors = select_tokens.Survivors.empty(batch * rows, kept, self.scores.shape[2]) if self.fused else None
        self.indices = cupy.empty((batch, rows, kept), dtype=np.int32)
        self.lengths = cupy.empty((batch, rows), dtype=np.int32)
        splits = max(1, min(attend.RESIDENT_BLOCKS // (batch * rows), -(-kept // 64)))
        heads_a_list = self.group if shared else 1
        self.attention = attend.AttendBuffers.empty(batch * rows, heads_a_list, cache.keys, splits, self.lse.dtype)
        settle()

    def stages(self, query: Any) -> dict[str, Callable[[], None]]:
        return {"score": partial(self._score, query), "select": self._select, "attend": partial(self._attend, query)}

    def _abandon(self) -> None:
        if self.survivors:
            self.survivors.clear()

    @property
    def searches(self) -> Any:
        """uint32 [B * rows]: how often each row was selected from all its scores; None for a plan that always does."""
        return self.survivors.counts[2] if self.survivors else None

    def forget(self) -> None:
        """Begin a new text: the next step selects from all scores."""
        if self.survivors:
            with callers_stream(self.cache.array_type):
                self.survivors.forget()

    def _score(self, query: Any) -> None:
        """Scores of every valid token; those near the top are passed on."""
        score.score_into(
            self.scores,
            query,
            self.fragments,
            self.codes,
            self.spans,
            self.layout,
            self.collision,
            norms=self.norms,
            survivors=self.survivors,
            budget=self.budget,
        )

    def _select(self) -> None:
        """The kept slots of every row."""
        if not self.fused:
            select_tokens.sum_group_into(self.totals, self.scores)
        status = self.status if isinstance(self.method, Socket) else None
        select_tokens.select_into(
            self.indices, self.lengths, self.totals, self.spans, self.budget, self.survivors, status
        )

    def _attend(self, query: Any) -> None:
        """Exact attention to them."""
        rows = self.indices.reshape(-1, self.indices.shape[-1])
        keys, values = self.cache.keys, self.cache.values
        attend.attend_into(
            self.value, self.lse, query, keys, values, rows, self.lengths, self.sm_scale, self.attention, self.status
        )

    def _index(self, keys: Any, values: Any) -> None:
        hash_keys.hash_into(self.codes, keys, self.spans, self.layout, self.matrix, self.center, self.slots)
        if self.norms is not None:
            hash_keys.norms_into(self.norms, values, self.spans, append=True)


plan = DecodePlan
