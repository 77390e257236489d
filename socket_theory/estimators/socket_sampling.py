"""SOCKET's sampling estimator: average the values of tokens drawn from the soft-hash law (S10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from socket_theory.backend import Backend, callers_stream
from socket_theory.checks import require_count, require_flag
from socket_theory.estimators.baselines import head_uniforms, require_key
from socket_theory.estimators.cache import Cache
from socket_theory.estimators.estimate import Estimate
from socket_theory.estimators.method import refuse
from socket_theory.estimators.socket_lsh import SoftHashing, checked_norms
from socket_theory.estimators.step import Step
from socket_theory.rng import Key
from socket_theory.selection import Budget


@dataclass(frozen=True)
class SocketSampling(SoftHashing):
    """An unbiased estimate of y_{tau,L} = sum w-bar_i v_i / sum w-bar_i from `num_samples` draws with replacement.

    Plain: draw J proportional to w-bar, average v_J. Value-aware: draw proportional to w-bar |v|, average
    v_J/|v_J| and multiply by sum w-bar|v| / sum w-bar: the least trace variance of any importance law (S10).
    The lse of an estimate is ln sum w-bar over all valid tokens.

    Parameters
    ----------
    num_samples : int
        M >= 1.
    value_aware : bool
        Which of the two laws; where every |v| is zero it falls back to the uniform law. Value vectors are zero or at
        least 1e-32 long for the value-aware one; shorter ones are refused.

    References
    ----------
    SOCKET, Theorem 3 (in the form of S9, S10, S11, S12).
    """

    num_samples: int = 1024
    value_aware: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "num_samples", require_count("num_samples", self.num_samples))
        object.__setattr__(self, "value_aware", require_flag("value_aware", self.value_aware))

    def index(self, backend: Backend, keys: Any, values: Any, spans: Any, planes: Any, center: Any) -> dict[str, Any]:
        codes = {"codes": backend.hash_keys(keys, spans, planes, center)}
        return codes | ({"value_norms": checked_norms(backend, values, spans)} if self.value_aware else {})

    def attend(
        self,
        query: Any,
        cache: Cache,
        *,
        budget: Budget | None = None,
        sm_scale: float | None = None,
        out_dtype: Any | None = None,
        key: Key | None = None,
    ) -> Estimate:
        """One draw of the estimator. Requires `key`; takes neither budget nor sm_scale.

        Shapes: query [..., Hq, D] -> value [..., Hq, E]; indices are the distinct tokens drawn. The draw of a head
        depends on the key and on its place in the batch. Raises TypeError without a key, and as `Method.attend`.
        """
        refuse(self, budget=budget, sm_scale=sm_scale)
        step = Step.start(self, query, cache, None, out_dtype)
        points = head_uniforms(require_key(self, key), step, np.arange(self.num_samples))
        norms = cache.arrays.get("value_norms")
        with callers_stream(cache.array_type):
            value, lse, indices = cache.backend.sample(self._log_scores(step), cache.values, cache.spans, norms, points)
            return step.finish(value, lse, indices, kind="angular")

    def expectation(self, query: Any, cache: Cache, *, out_dtype: Any | None = None) -> Estimate:
        """y_{tau,L} itself, which `attend` estimates without bias. Shapes and errors as `attend`."""
        step = Step.start(self, query, cache, None, out_dtype)
        with callers_stream(cache.array_type):
            value, lse = cache.backend.average(self._log_scores(step), cache.values, cache.spans)
            return step.finish(value, lse, step.everything(), kind="angular")

    def _log_scores(self, step: Step) -> Any:
        cache = step.cache
        return cache.backend.log_soft_scores(
            step.query, cache.arrays["codes"], cache.spans, cache.planes, self.query_map, self.temperature
        )
