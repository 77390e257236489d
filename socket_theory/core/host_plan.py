"""The reference of plans: a step after the other, on any backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from socket_theory.core.array_types import callers_stream, from_native
from socket_theory.core.cache import Cache
from socket_theory.core.check_growth import new_tokens, require_grown
from socket_theory.core.check_query import checked_query, checked_scale
from socket_theory.core.checks import require_count, require_head_ratio
from socket_theory.core.definition import require_key
from socket_theory.core.finish import finish, output_dtype
from socket_theory.core.owned_elsewhere import OwnedElsewhere
from socket_theory.core.plans import require_no
from socket_theory.core.rng import Key
from socket_theory.core.selection import Budget, require_budget
from socket_theory.core.step import Step


class HostPlan:
    """A plan that makes one step after the other, for backends without kernels of their own: the reference of plans.

    Step n draws what `attend` draws with the same key for n = 0, and by counter n of the same Philox stream later, as a
    plan on a GPU does. What is wrong with a query is raised by `run` at once.

    Raises
    ------
    TypeError, ValueError
        For a wrong head ratio, an out_dtype that is no float, a budget that is none, or no key where one is needed.
    """

    def __init__(
        self,
        cache: Cache,
        num_qo_heads: int,
        *,
        budget: Budget | None = None,
        key: Key | None = None,
        sm_scale: float | None = None,
        out_dtype: Any = None,
    ) -> None:
        batch, heads, slots, dim = cache.rows.shape
        require_head_ratio(require_count("num_qo_heads", num_qo_heads), heads)
        self.cache = replace(cache, batch_shape=(batch,))
        self.capacity = cache.capacity or slots
        self.budget = None if budget is None else require_budget(budget)
        self.key = require_key(cache.method, key) if "key" in cache.method.takes else None
        self.sm_scale = checked_scale(sm_scale, dim)
        self.dtype = cache.rows.dtypes[0] if out_dtype is None else output_dtype(out_dtype)
        self.steps, self._status = 0, 0
        place = cache.backend.to_device
        self._value = place(np.zeros((batch, num_qo_heads, cache.rows.value_dim), self.dtype))
        self._lse = place(np.zeros((batch, num_qo_heads)))
        self.value, self.lse = (from_native(array, cache.array_type) for array in (self._value, self._lse))
        self.indices: Any = None

    def run(self, query: Any) -> tuple[Any, Any]:
        for stage in self.stages(query).values():
            stage()
        return self.value, self.lse

    def stages(self, query: Any) -> dict[str, Callable[[], None]]:
        def step() -> None:
            native = checked_query(query, self.cache, self.cache.method)
            if native.shape != (*self._value.shape[:2], self.cache.rows.shape[3]):
                shape = (*self._value.shape[:2], self.cache.rows.shape[3])
                raise ValueError(f"query has shape {tuple(native.shape)}: pass {shape}.")
            with callers_stream(self.cache.array_type):
                step = Step(native, self.cache, self.sm_scale, self.budget, self.key, number=self.steps)
                outcome = self.cache.method.step(step)
                estimate = finish(step, outcome, self.dtype)
                self.value[...], self.lse[...] = estimate.value, estimate.lse
            self.indices = estimate.indices
            self.steps += 1

        return {"step": step}

    def append(self, keys: Any, values: Any = None, *, tokens: int | None = None) -> None:
        cache, held = self.cache, self.cache.rows
        if isinstance(held, OwnedElsewhere):
            grown, added = require_grown(held, cache.array_type, keys, values, tokens)
        else:
            room = held.with_capacity(None)
            added = new_tokens(room, cache.batch_shape, cache.array_type, keys, values, tokens).shape[2]
        fits = cache.rows.ends + added <= self.capacity
        if fits.all():
            self.cache = cache.append(keys, values, tokens=tokens)
            return
        lengths = np.where(fits, cache.kv_len + added, cache.kv_len)
        if isinstance(held, OwnedElsewhere):
            rows = grown.bind(np.stack([cache.kv_start, lengths], axis=1), cache.backend)
            index = cache.method.index(rows, cache.sample, dict(cache.index.frozen))
            self.cache = replace(cache, rows=rows, index=index)
        elif fits.any():
            longer = replace(cache, rows=held.with_capacity(None)).append(keys, values)
            index = longer.index.undo(cache.index, cache.backend.to_device(~fits), lengths)
            self.cache = replace(longer, rows=longer.rows.truncate(lengths).with_capacity(cache.capacity), index=index)
        self._status |= 1

    def check(self) -> None:
        found, self._status = self._status, 0
        require_no(found)
