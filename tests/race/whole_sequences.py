"""What stands in for RACE's kernels and for CuPy where a benchmark of whole sequences is tested without a GPU."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import numpy as np

from socket_gpu.bench.clock import Timing
from socket_gpu.race.exact import wide
from socket_gpu.race.exact_law import Law


class _Random:
    def __init__(self, seed):
        self.generator = np.random.default_rng(seed)

    def standard_normal(self, shape, dtype):
        return self.generator.standard_normal(shape, dtype=dtype)


class NumpyUnderCupysName(ModuleType):
    random = SimpleNamespace(RandomState=_Random)

    @staticmethod
    def get_default_memory_pool():
        return SimpleNamespace(used_bytes=lambda: 1000, free_all_blocks=lambda: None)

    def __getattr__(self, name):
        return getattr(np, name)


class CountingClock:
    """A microsecond for every stage that a run launches; two runs stand for all."""

    def __init__(self, runs=3):
        self.runs = runs

    def repeating(self, warm_up, runs):
        return CountingClock(runs)

    def time(self, work, *, before=lambda run: None, after=lambda: None):
        for run in range(2):
            before(run)
            start = DenseSequences.launched
            work()
            taken = float(DenseSequences.launched - start)
            after()
        return Timing.of([taken] * self.runs)


class DenseSequences:
    """The interface of the kernels, made of N x N weights in float64."""

    launched = 0

    def __init__(self, query, keys, values, planes, beta, causal):
        self.given, self.causal = (query, keys, values), causal
        self.law = Law.of(planes, float(beta))
        self.value, self.d_query, self.d_keys, self.d_values = (
            np.empty_like(array) for array in (query, query, keys, values)
        )
        self.d_planes, self.d_beta = np.empty_like(planes), np.empty_like(beta)

    def forward_stages(self):
        return {"sums of keys": self._launch, "read": self._read}

    def backward_stages(self, above):
        self.above = above
        return {
            "query gradient": self._differentiate,
            "sums of queries": self._launch,
            "key gradient": self._launch,
        }

    def seen(self, pass_name):
        """Which key [N] a query [N] is weighted with in the passes "value", "query" and "keys"."""
        count = self.given[0].shape[2]
        return np.tril(np.ones((count, count))) if self.causal else np.ones((count, count))

    def along(self, towards):
        return towards

    def wrote(self):
        """Called after every pass."""

    def _launch(self):
        DenseSequences.launched += 1

    def _heads(self):
        query, keys, values = (wide(array)[0] for array in self.given)
        group = len(query) // len(keys)
        for head in range(len(query)):
            k, v = keys[head // group], values[head // group]
            yield head, head // group, query[head], k, v, self.law.features(query[head]), self.law.features(k)

    def _read(self):
        self._launch()
        for head, _, _, _, v, asked, held in self._heads():
            weights = asked @ held.T * self.seen("value")
            self.value[0, head] = (weights @ v / weights.sum(axis=1, keepdims=True)).astype(self.value.dtype)
        self.wrote()

    def _differentiate(self):
        self._launch()
        above = wide(self.above)[0]
        d_keys, d_values = (np.zeros(self.given[1].shape[1:]) for _ in range(2))
        d_query = np.zeros(self.given[0].shape[1:])
        of_held = np.zeros((len(d_keys), len(d_keys[0]), self.law.weights.shape[0] * 2 ** self.law.weights.shape[1]))
        planes, beta = 0.0, 0.0
        for head, kv, q, _, v, asked, held in self._heads():
            weights = asked @ held.T
            behind = weights * self.seen("query")
            total = behind.sum(axis=1, keepdims=True)
            along = self.along((above[head] * (behind @ v / total)).sum(axis=1, keepdims=True))
            pairs = (above[head] @ v.T - along) / total
            d_query[head], of_planes, of_beta = self.law.through(pairs * self.seen("query") @ held, asked, q, False)
            planes, beta = planes + of_planes, beta + of_beta
            of_held[kv] += (pairs * self.seen("keys")).T @ asked
            d_values[kv] += (weights * self.seen("keys")).T @ (above[head] / total)
        for kv, gradient in enumerate(of_held):
            k = wide(self.given[1])[0, kv]
            d_keys[kv], of_planes, of_beta = self.law.through(gradient, self.law.features(k), k, False)
            planes, beta = planes + of_planes, beta + of_beta
        for place, found in ((self.d_query, d_query), (self.d_keys, d_keys), (self.d_values, d_values)):
            place[0] = found.astype(place.dtype)
        self.d_planes[...], self.d_beta[...] = planes, beta
        self.wrote()
