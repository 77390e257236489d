"""One decode step as a method gets it: the checked query and what it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from socket_theory.core.backend import Backend
from socket_theory.core.cache import Cache
from socket_theory.core.checks import FLOAT_NAMES
from socket_theory.core.index import Index
from socket_theory.core.owned_elsewhere import OwnedElsewhere
from socket_theory.core.rng import Key
from socket_theory.core.rows import Rows
from socket_theory.core.selection import Budget


@dataclass(frozen=True, eq=False)
class Step:
    """A validated decode step, as `Method.step` gets it.

    Parameters
    ----------
    query : array [B, Hq, D]
        One token of each sequence, in the backend's array type.
    cache : Cache
        What it attends to; `rows`, `index`, `sample` and `backend` are the cache's.
    sm_scale : float
    budget, key, carry : optional
        What `attend` was given, None where the method does not take it.
    number : int
        Which step of a plan it is; 0 for `attend`. Draws depend on it and on the key.
    """

    query: Any
    cache: Cache
    sm_scale: float
    budget: Budget | None = None
    key: Key | None = None
    carry: Any = None
    number: int = 0

    @property
    def rows(self) -> Rows:
        return self.cache.rows

    @property
    def index(self) -> Index:
        return self.cache.index

    @property
    def sample(self) -> Any:
        return self.cache.sample

    @property
    def backend(self) -> Backend:
        return self.cache.backend

    @property
    def shared(self) -> bool:
        """Whether the scores of a KV head's query heads are to be added, so that they must be on one scale."""
        return self.budget is not None and self.budget.per == "kv_head"

    def everything(self) -> Any:
        """Every valid slot as an index list for each head, int32 [B, Hq, N]."""
        start, length = self.rows.kv_range[:, :1], self.rows.kv_range[:, 1:]
        steps = np.arange(length.max())
        slots = np.where(steps < length, start + steps, -1).astype(np.int32)
        return self.backend.to_device(np.repeat(slots[:, None], self.query.shape[1], axis=1))

    def checked_scores(self, scores: Any) -> Any:
        """What the method's `scores` returned, in float32.

        Raises
        ------
        TypeError, ValueError
            Naming the method, for anything but floats [B, Hq, N] in the backend's array type, NaN, or numbers that
            float32 cannot hold.
        """
        name, block = f"{type(self.cache.method).__name__}.scores", self.backend.slot_block
        _, kv_heads, slots, _ = self.rows.shape
        want = (*self.query.shape[:2], slots)
        kind = type(scores)
        known = kind is type(self.query) or kind is type(self.backend.to_device(np.zeros(1, dtype=np.float32)))
        if not known or str(scores.dtype) not in FLOAT_NAMES:
            array = f"{type(self.query).__module__}.{type(self.query).__name__}"
            given = f"dtype {scores.dtype}" if known else f"an object of type {kind.__module__}.{kind.__name__}"
            raise TypeError(f"{name} returned {given}: return a float32 {array} {want}, as step.query is one.")
        # Rows of another owner may have more slots than the index has entries, or fewer after they were cropped.
        owned = isinstance(self.rows, OwnedElsewhere)
        expected = range(int(self.rows.ends.max()), 2**31) if owned else (slots, -(-slots // block) * block)
        fits = scores.ndim == 3 and scores.shape[2] in expected
        if not fits or scores.shape[:2] != want[:2]:
            raise ValueError(
                f"{name} returned the shape {tuple(scores.shape)}: return {want}, "
                "a score for each sequence, query head (not KV head) and token slot."
            )
        with np.errstate(over="ignore"):
            ranked = scores if scores.dtype == np.float32 else scores.astype(np.float32)
        group = self.query.shape[1] // kv_heads
        largest = float(np.finfo(np.float32).max) / group if self.shared else np.inf
        for row, (start, length) in enumerate(self.rows.kv_range.tolist()):
            seen, given = (a[row, :, start : start + length] for a in (ranked, scores))
            if bool((seen != seen).any()):
                raise ValueError(f"{name} returned NaN: return numbers, they decide which tokens are kept.")
            if ranked is not scores and bool(((abs(seen) == np.inf) & (abs(given) < np.inf)).any()):
                raise ValueError(f"{name} returned numbers beyond float32: scale them, or return their logarithms.")
            if bool(((abs(seen) > largest) & (seen > -np.inf)).any()):
                raise ValueError(f"{name} returned numbers beyond {largest:.2g}: a group adds them, so scale them.")
        return ranked
