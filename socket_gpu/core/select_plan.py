"""The planned step of methods that rank: a family's scorer, the selection, exact attention to what is kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from socket_gpu.core import attend, select_tokens
from socket_gpu.core._launch import settle
from socket_gpu.core.plan import PlannedStep
from socket_theory.core.array_types import callers_stream
from socket_theory.core.cache import Cache
from socket_theory.core.selection import Budget, require_budget


class Scorer(Protocol):
    """A family's part: scores of every valid token, and the index of new ones. Nothing is allocated but when made."""

    @property
    def slots(self) -> int:
        """Score slots of a row, at least the cache's."""

    @property
    def adds_groups(self) -> bool:
        """Whether it adds the scores of a KV head's query heads itself."""

    @property
    def zero_is_wrong(self) -> bool:
        """Whether a row of which every score vanishes has lost its ranking, which `check` then says."""

    def score_into(self, scores: Any, query: Any, spans: Any, survivors: Any, budget: Budget) -> None:
        """Write float32 scores [B, rows, slots] of query [B, Hq, D]; those near the top are passed on as survivors."""

    def append(self, keys: Any, values: Any, spans: Any, capacity: int) -> None:
        """Add the index of tokens keys, values [B, Hkv, T, D] behind the spans, as far as `capacity`."""


class SelectPlan(PlannedStep):
    """A step that keeps a budget's tokens by their scores and attends to those.

    `run(query)` writes `value` [B, Hq, D], `lse` [B, Hq] (natural log), `indices` int32 [B, rows, K] and `lengths`
    [B, rows]; rows are query heads, or KV heads for per="kv_head". `append(keys, values)` adds tokens in place and
    lengthens the spans on the device, so both may be captured in one CUDA graph and replayed. Kernels are compiled in
    the first call of each: make one before capturing. The first step, and a head whose scores fall far below the last
    step's, selects from all scores, which takes longer; `searches` counts how often each row did. Beside the outputs a
    plan holds a score of 4 bytes a token and row, and 8 bytes for each of up to 32 survivors a kept token and row.

    Raises
    ------
    TypeError, ValueError
        For no budget, a head_dim or a number of heads that attention has no kernels for, and as PlannedStep.
    RuntimeError
        Naming what is missing for a GPU: the package CuPy, the driver, a device or the CUDA headers.
    """

    def __init__(
        self,
        cache: Cache,
        make_scorer: Callable[[Cache, int], Scorer],
        *,
        num_qo_heads: int,
        budget: Budget,
        sm_scale: float | None = None,
        out_dtype: Any = None,
    ) -> None:
        super().__init__(cache, num_qo_heads, sm_scale, out_dtype)
        cupy = import_module("cupy")
        self.budget, self.scorer = require_budget(budget), make_scorer(cache, self.group)
        batch, heads = cache.rows.shape[:2]
        shared, slots = budget.per == "kv_head", self.scorer.slots
        self.fused = not shared or self.scorer.adds_groups
        rows = heads if shared else num_qo_heads
        self.scores = cupy.empty((batch, rows if self.fused else num_qo_heads, slots), np.float32)
        self.totals = self.scores if self.fused else cupy.empty((batch, rows, slots), np.float32)
        kept = budget.kept(self.slots)
        self.survivors = select_tokens.Survivors.empty(batch * rows, kept, slots) if self.fused else None
        self.indices = cupy.empty((batch, rows, kept), dtype=np.int32)
        self.lengths = cupy.empty((batch, rows), dtype=np.int32)
        splits = max(1, min(attend.RESIDENT_BLOCKS // (batch * rows), -(-kept // 64)))
        heads_a_list = self.group if shared else 1
        self.attention = attend.AttendBuffers.empty(batch * rows, heads_a_list, self.rows.keys, splits, self.lse.dtype)
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
        self.scorer.score_into(self.scores, query, self.spans, self.survivors, self.budget)

    def _select(self) -> None:
        """The kept slots of every row."""
        if not self.fused:
            select_tokens.sum_group_into(self.totals, self.scores)
        status = self.status if self.scorer.zero_is_wrong else None
        select_tokens.select_into(
            self.indices, self.lengths, self.totals, self.spans, self.budget, self.survivors, status
        )

    def _attend(self, query: Any) -> None:
        """Exact attention to them."""
        rows = self.indices.reshape(-1, self.indices.shape[-1])
        attend.attend_into(
            self.value, self.lse, query, self.rows, rows, self.lengths, self.sm_scale, self.attention, self.status
        )

    def _index(self, keys: Any, values: Any) -> None:
        self.scorer.append(keys, values, self.spans, self.slots)
