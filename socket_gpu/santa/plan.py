"""A SANTA step planned once and run many times: every key read, some values drawn, safe to capture in a graph (N9)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from socket_gpu.core._launch import settle
from socket_gpu.core.backend import CupyBackend
from socket_gpu.core.plan import PlannedStep
from socket_gpu.santa import draw
from socket_theory.core.cache import Cache
from socket_theory.core.definition import require_key
from socket_theory.core.rng import Key
from socket_theory.santa.estimator import Santa

SAMPLERS = ("phase_carried", "flash")


class SantaPlan(PlannedStep):
    """SANTA's step over one cache.

    `run(query)` writes `value` [B, Hq, D], the exact `lse` [B, Hq] (natural log) and `draws` int32 [B, Hq, M], the
    slots drawn, ascending and repeated, -1 for none; M is S, or for flash the most that its tiles can draw. Fold
    request and layer into `key`. Steps are counted on the device, in `steps` uint64 [B * Hq], so that a replayed graph
    draws anew: a head's offset in step n is `rng.uniform(key, row << 32 | tile, step=n)`, row = sequence * Hq + head,
    tile 0 unless the sampler is flash. The first step is the draw of `method.attend(query, cache, key=key)`, rounding
    aside. Kernels are compiled in the first run: make one before capturing.

    Raises
    ------
    TypeError, ValueError
        For another method, a sampler without GPU kernels, a dtype but float16 and bfloat16, a head_dim but 64 and 128,
        a tile_len of flash but multiples of 32 up to 1024, more than 8 query heads a KV head, no key, more tokens than
        a block scans tiles of, and as PlannedStep.
    RuntimeError
        Naming what is missing for a GPU: the package CuPy, the driver, a device or the CUDA headers.
    """

    def __init__(
        self, cache: Cache, *, num_qo_heads: int, key: Key, sm_scale: float | None = None, out_dtype: Any = None
    ) -> None:
        cupy, method = CupyBackend().cupy, cache.method
        if type(method) is not Santa or method.sampler not in SAMPLERS:
            raise TypeError(f"{method} has no GPU plan: pass a cache of Santa with sampler={' or '.join(SAMPLERS)}.")
        super().__init__(cache, num_qo_heads, sm_scale, out_dtype)
        self.method, self.key = method, require_key(method, key)
        self.shape = draw.TileShape.of(cache.rows.shape, cache.rows.dtypes[0], self.group, method)
        batch, _, _, dim = cache.rows.shape
        rows, tiles = batch * num_qo_heads, -(-self.slots // self.shape.tile_len)
        self.scores = cupy.empty((rows, tiles * self.shape.tile_len), dtype=np.float32)
        self.states = cupy.empty((rows, tiles, 2), dtype=np.float32)
        most = max(method.num_samples, tiles) if method.sampler == "flash" else method.num_samples
        self.draws = cupy.empty((batch, num_qo_heads, most), dtype=np.int32)
        self.steps = cupy.zeros(rows, dtype=np.uint64)
        self.buffers = draw.DrawBuffers.empty(rows, dim, most)
        settle()

    def stages(self, query: Any) -> dict[str, Callable[[], None]]:
        return {"score": partial(self._score, query), "draw": self._draw}

    def _score(self, query: Any) -> None:
        """Scores of every valid token and the softmax state of every tile."""
        rows, spans = self.rows, self.spans
        draw.score_tiles_into(self.scores, self.states, query, rows, spans, self.sm_scale, self.shape)

    def _draw(self) -> None:
        """The draws and the average of their values; the step is counted."""
        draw.draw_values_into(
            (self.value, self.lse, self.draws),
            (self.scores, self.states, self.rows, self.spans),
            self.method,
            self.shape,
            (self.key, self.steps),
            self.buffers,
            self.status,
        )
