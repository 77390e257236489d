"""Times of GPU work by CUDA events, each taken after reading 256 MB, which leaves no input in the L2 cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from socket_gpu.core._launch import multiprocessors

FLUSH_BYTES = 256 * 2**20
BANDWIDTH_BYTES = 2 * 2**30
WARM_UP, REPEATS = 8, 50

_READ = """
extern "C" __global__ void read_all(const uint4* __restrict__ data, unsigned* sink, long long packs) {
    unsigned seen = 0;
    const long long step = (long long)gridDim.x * blockDim.x;
#pragma unroll 8
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < packs; i += step) {
        const uint4 pack = data[i];
        seen ^= pack.x ^ pack.y ^ pack.z ^ pack.w;
    }
    if (seen == 0x9e3779b9u) *sink = seen;  // a store the compiler cannot rule out keeps the loads
}
"""


@dataclass(frozen=True)
class Timing:
    """Median, quartiles, longest and mean of repeated runs, in microseconds, and how many runs there were."""

    us: float
    quartiles: tuple[float, float]
    longest: float
    mean: float
    runs: int = REPEATS

    @classmethod
    def of(cls, microseconds: list[float]) -> Timing:
        low, middle, high, longest = (round(float(q), 2) for q in np.percentile(microseconds, [25, 50, 75, 100]))
        return cls(middle, (low, high), longest, round(float(np.mean(microseconds)), 2), len(microseconds))


class Reader:
    """Reads a buffer of `size` bytes once a call and keeps nothing of it."""

    def __init__(self, size: int) -> None:
        cupy = import_module("cupy")
        self.buffer, self.sink = cupy.arange(size // 4, dtype=np.uint32), cupy.zeros(1, dtype=np.uint32)
        self.kernel = cupy.RawKernel(_READ, "read_all")

    def __call__(self) -> None:
        packs = np.int64(self.buffer.size // 4)
        self.kernel((8 * multiprocessors(),), (256,), (self.buffer, self.sink, packs))


def _nothing(*_: int) -> None:
    pass


class Clock:
    """Times launches on CuPy's current stream, which torch shares as long as neither has been given another."""

    def __init__(self, flush: Reader | None = None, warm_up: int = WARM_UP, runs: int = REPEATS) -> None:
        self.flush, self.warm_up, self.runs = flush or Reader(FLUSH_BYTES), warm_up, runs

    def repeating(self, warm_up: int, runs: int) -> Clock:
        """A clock that takes the median of another number of runs, for work that is too long for the usual one."""
        return Clock(self.flush, warm_up, runs)

    def time(
        self,
        work: Callable[[], Any],
        *,
        before: Callable[[int], Any] = _nothing,
        after: Callable[[], Any] = _nothing,
    ) -> Timing:
        """Median of the runs of `work` alone, usually 50; `before(run number)` and `after()` are not timed."""
        cuda = import_module("cupy").cuda
        microseconds = []
        for run in range(self.warm_up + self.runs):
            before(run)
            start, stop = cuda.Event(), cuda.Event()
            # The flush takes longer than the host needs to queue what follows, so no launch latency is timed.
            self.flush()
            start.record()
            work()
            stop.record()
            after()
            stop.synchronize()
            microseconds.append(cuda.get_elapsed_time(start, stop) * 1e3)
        return Timing.of(microseconds[self.warm_up :])


def capture(work: Callable[[], Any]) -> Callable[[], None]:
    """`work`, which must have run once before, as a CUDA graph; the result replays it on the current stream."""
    cuda = import_module("cupy").cuda
    cuda.Device().synchronize()
    stream = cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        work()
        graph = stream.end_capture()
    return lambda: graph.launch(cuda.get_current_stream())


def bandwidths(clock: Clock) -> tuple[float, float]:
    """(copy, read) in TB/s on 2 GiB; a copy counts the bytes read and the bytes written."""
    reader = Reader(BANDWIDTH_BYTES)
    read = BANDWIDTH_BYTES / clock.time(reader).us
    target = import_module("cupy").empty_like(reader.buffer)
    copied = clock.time(lambda: target.data.copy_from_device_async(reader.buffer.data, BANDWIDTH_BYTES))
    return round(2 * BANDWIDTH_BYTES / copied.us / 1e6, 4), round(read / 1e6, 4)
