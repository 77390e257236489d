"""A decode step planned once and run many times: no allocation, no host synchronisation, safe to capture in a graph."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu import attending, key_index, scoring, selecting
from socket_gpu._launch import checked
from socket_gpu.layout import CodeLayout
from socket_theory.checks import require_head_ratio, require_positive
from socket_theory.estimators import Cache, HardLSH, Socket
from socket_theory.selection import Budget

STATUS = {
    1: "an append exceeded the planned capacity and was dropped: prepare the cache with a larger capacity.",
    4: "every score of a row is below 1e-38: raise the temperature, or decode with method.attend; or all values are 0.",
    2: "an output is not finite: check the query, keys and values for NaN or infinity.",
}


class DecodePlan:
    """The buffers and launches of one layer's decode step over one cache.

    `run(query)` writes `value` [B, Hq, D], `lse` [B, Hq] (natural log), `indices` int32 [B, rows, K] and `lengths`
    [B, rows]; rows are query heads, or KV heads for group="shared". `append(keys, values)` adds tokens in place and
    lengthens the spans on the device, so both may be captured in one CUDA graph and replayed. Kernels are compiled in
    the first call of each: make one before capturing. The first step, and a head whose scores fall far below the last
    step's, selects from all scores, which takes longer; `searches` counts how often each row did.

    Raises
    ------
    TypeError, ValueError
        For a method without GPU kernels, a cache of another backend, or a wrong head ratio.
    """

    def __init__(
        self, cache: Cache, *, num_qo_heads: int, budget: Budget, sm_scale: float | None = None, out_dtype: Any = None
    ) -> None:
        cupy = import_module("cupy")
        method = cache.method
        if not isinstance(method, Socket | HardLSH):
            raise TypeError(f"{type(method).__name__} has no GPU decode plan: pass a cache of Socket or HardLSH.")
        if cache.backend.name != "cupy":
            raise ValueError(f"the cache is on backend {cache.backend.name!r}: prepare it with CuPy or CUDA arrays.")
        self.cache, self.method, self.budget = cache, method, budget
        batch, heads, self.slots, dim = cache.keys.shape
        self.group = require_head_ratio(num_qo_heads, heads)
        self.sm_scale = 1 / float(np.sqrt(dim)) if sm_scale is None else require_positive("sm_scale", sm_scale)
        self.layout = CodeLayout(method.num_tables, method.num_planes)
        self.fragments, self.matrix = key_index.plane_fragments(cache.planes), key_index.hash_matrix(cache.planes)
        self.center = None if cache.center is None else cupy.ascontiguousarray(cache.center.astype(np.float32))
        self.codes, self.norms = cache.arrays["codes"], cache.arrays.get("value_norms")
        self.spans = cupy.asarray(cache.spans)
        self.status = cupy.zeros(1, dtype=np.uint32)

        self.collision = (
            scoring.Collision(method.query_map, method.temperature)
            if isinstance(method, Socket)
            else scoring.Collision("hard")
        )
        rounds = scoring.passes(self.collision.entry(self.layout, dim, self.group), self.group)
        shared = budget.group == "shared"
        self.fused = not shared or (rounds == 1 and self.layout.rings <= scoring.MOST_RINGS)
        rows = heads if shared else num_qo_heads
        self.scores = cupy.empty((batch, rows if self.fused else num_qo_heads, self.codes.shape[2] * 32), np.float32)
        self.totals = self.scores if self.fused else cupy.empty((batch, rows, self.scores.shape[2]), np.float32)
        kept = budget.kept(self.slots)
        self.survivors = selecting.Survivors.empty(batch * rows, kept, self.scores.shape[2]) if self.fused else None
        self.indices = cupy.empty((batch, rows, kept), dtype=np.int32)
        self.lengths = cupy.empty((batch, rows), dtype=np.int32)
        dtype = cache.keys.dtype if out_dtype is None else out_dtype
        wide = np.float64 if cache.keys.dtype.itemsize == 8 else np.float32
        self.value = cupy.empty((batch, num_qo_heads, dim), dtype=dtype)
        self.lse = cupy.empty((batch, num_qo_heads), dtype=wide)
        splits = max(1, min(attending.RESIDENT_BLOCKS // (batch * rows), -(-kept // 64)))
        heads_a_list = self.group if shared else 1
        self.attention = attending.AttendBuffers.empty(batch * rows, heads_a_list, dim, splits, wide)

    def run(self, query: Any) -> tuple[Any, Any]:
        """One step for queries [B, Hq, D] of the cache's dtype; the returned arrays are the plan's own."""
        checked("query", query, self.cache.keys.dtype, (*self.value.shape[:2], self.cache.keys.shape[-1]))
        self.score(query)
        self.select()
        self.attend(query)
        return self.value, self.lse

    @property
    def searches(self) -> Any:
        """uint32 [B * rows]: how often each row was selected from all its scores; None for a plan that always does."""
        return self.survivors.counts[2] if self.survivors else None

    def forget(self) -> None:
        """Begin a new text: the next step selects from all scores."""
        if self.survivors:
            self.survivors.forget()

    def score(self, query: Any) -> None:
        """Stage 1: scores of every valid token; those near the top are passed on."""
        scoring.score_into(
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

    def select(self) -> None:
        """Stage 2: the kept slots of every row."""
        if not self.fused:
            selecting.sum_group_into(self.totals, self.scores)
        status = self.status if isinstance(self.method, Socket) else None
        selecting.select_into(self.indices, self.lengths, self.totals, self.spans, self.budget, self.survivors, status)

    def attend(self, query: Any) -> None:
        """Stage 3: exact attention to them."""
        rows = self.indices.reshape(-1, self.indices.shape[-1])
        keys, values = self.cache.keys, self.cache.values
        attending.attend_into(
            self.value, self.lse, query, keys, values, rows, self.lengths, self.sm_scale, self.attention, self.status
        )

    def append(self, keys: Any, values: Any) -> None:
        """Add tokens keys, values [B, Hkv, T, D] behind every sequence, in place."""
        shape = (*self.cache.keys.shape[:2], keys.shape[2], self.cache.keys.shape[-1])
        checked("keys", keys, self.cache.keys.dtype, shape, alignment=16)
        checked("values", values, self.cache.values.dtype, shape, alignment=16)
        key_index.append_into(self.cache.keys, keys, self.spans)
        key_index.append_into(self.cache.values, values, self.spans)
        key_index.hash_into(self.codes, keys, self.spans, self.layout, self.matrix, self.center, self.slots)
        if self.norms is not None:
            key_index.norms_into(self.norms, values, self.spans, append=True)
        key_index.advance_spans(self.spans, self.status, keys.shape[2], self.slots)

    def check(self) -> None:
        """Synchronise; RuntimeError with the sentence of what went wrong in a run or append since the last check."""
        found = int(self.status[0])
        self.status.fill(0)
        for bit, sentence in STATUS.items():
            if found & bit:
                raise RuntimeError(sentence)


plan = DecodePlan
