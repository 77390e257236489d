"""A RACE step planned once and run many times, whose time no token changes, safe to capture in a graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from socket_gpu.core._launch import settle
from socket_gpu.core.backend import CupyBackend
from socket_gpu.core.plan import PlannedStep
from socket_gpu.race import step
from socket_theory.core.cache import Cache
from socket_theory.race.estimator import Race


class RacePlan(PlannedStep):
    """RACE's step over one cache.

    `run(query)` writes `value` [B, Hq, E] and `lse` [B, Hq], the natural log of the mean over tables of all weights.
    The plan has sums of its own, copied from the cache: `mass` float64 [B, Hkv, F] and `weighted` float64
    [B, Hkv, F, E] of F = L 2^P buckets, to which `append` adds on the device. Their size, and what a run launches,
    depend on no length of the context. A token that is not finite cannot be taken out of the sums again: every run
    after it says so. Kernels are compiled in the first run and append: make one of each before capturing.

    Raises
    ------
    TypeError, ValueError
        For another method, which may read in a way of its own, and as PlannedStep.
    RuntimeError
        Naming what is missing for a GPU: the package CuPy, the driver, a device or the CUDA headers.
    """

    def __init__(self, cache: Cache, *, num_qo_heads: int, out_dtype: Any = None) -> None:
        cupy, method = CupyBackend().cupy, cache.method
        if type(method) is not Race:
            raise TypeError(f"{method} has no GPU plan of RACE: pass a cache of Race.")
        super().__init__(cache, num_qo_heads, None, out_dtype)
        self.hash = step.Hash.of(cache.sample.weights, method.beta)
        flat = (*cache.rows.shape[:2], self.hash.buckets)
        sums = cache.index.arrays
        self.mass = cupy.array(sums["mass"].reshape(flat), dtype=np.float64, order="C")
        self.weighted = cupy.array(sums["weighted"].reshape(*flat, -1), dtype=np.float64, order="C")
        settle()

    def stages(self, query: Any) -> dict[str, Callable[[], None]]:
        return {"read": partial(self._read_sums, query)}

    def _read_sums(self, query: Any) -> None:
        step.read_sums_into(self.value, self.lse, query, self.hash, self.mass, self.weighted, self.status)

    def _index(self, keys: Any, values: Any) -> None:
        step.add_tokens_into(self.mass, self.weighted, keys, values, self.hash, self.spans, self.slots)
