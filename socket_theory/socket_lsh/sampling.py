"""SOCKET's sampling estimator: average the values of tokens drawn from the soft-hash law (S10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from socket_theory.core.array_types import callers_stream
from socket_theory.core.backend import operations
from socket_theory.core.cache import Cache
from socket_theory.core.check_query import checked_query, checked_scale
from socket_theory.core.checks import require_count, require_flag
from socket_theory.core.draws import head_uniforms
from socket_theory.core.estimate import Estimate, Outcome
from socket_theory.core.finish import finish, output_dtype
from socket_theory.core.hashing import Planes
from socket_theory.core.index import TokenIndex
from socket_theory.core.rows import Rows
from socket_theory.core.step import Step
from socket_theory.socket_lsh.estimator import SoftHashing, hashed
from socket_theory.socket_lsh.operations import FAMILY


@dataclass(frozen=True)
class SocketSampling(SoftHashing):
    """The estimator of SOCKET's theory: the mean value of tokens drawn from the law of soft collisions.

    For a query q and the key k_i and value v_i of token i, all of one head, with Gaussian planes w_lp of length
    d = head_dim, tables l = 1..L, planes p = 1..P, drawn at `prepare`:

    - h_lp = query_map(<w_lp, q>), and s_ilp = +1 where <w_lp, k_i> >= 0, else -1;
    - c_i = (1/L) sum_l prod_p sigma(2 h_lp s_ilp / tau) is the token's collision weight (w-bar in the theory), with tau
      the temperature and sigma(x) = 1/(1 + exp(-x)); Z = sum_i c_i over the valid tokens;
    - y = sum_i c_i v_i / Z is the target (y_{tau,L} in the theory), which `expectation` computes.

    M draws J with replacement estimate y without bias (S10):

    - plain: draw J with probability c_J / Z, average v_J;
    - value-aware: draw J with probability c_J |v_J| / S, S = sum_i c_i |v_i|, average v_J / |v_J| and multiply by S/Z.
      Its variance summed over coordinates is the least of all such laws (S10). |v| is the Euclidean norm, rounded to
      bfloat16 in both places.

    y is an angular attention, not softmax attention: more tables and a lower temperature bring it to the weights
    (1 - theta_i/pi)^P, theta_i the angle of key and query (S3, S9, S11). Its distance from softmax does not fall with
    M. The lse of an estimate is ln Z, of kind "angular", so it merges with angular states only.

    A step reads the index of every valid token, P L bits a KV head (stored are 16 L on a CPU, P times L rounded up to
    a multiple of 32 on a GPU), and at most M value rows; `stats.bytes` counts the keys of these rows too.

    Parameters
    ----------
    num_planes : int
        P from 1 to 16: the exponent of the target. Raised, the target is sharper, and c_i noisier for the same L. Bits
        and time grow with P, but for the bits on a CPU.
    num_tables : int
        L >= 1. The distance of y from its limit of infinitely many tables falls as 1/sqrt(L) (S9); bits and time grow
        as L.
    query_map : {"tanh_scaled", "tanh", "linear"}
        z -> tanh(z)/sqrt(d), tanh(z) or z. Free in bytes and time.
    temperature : float
        tau > 0. Lowered, y comes closer to the limit of hard collisions (S6, S11) and c_i gets noisier. Free in bytes
        and time.
    num_samples : int
        M >= 1. The variance of the draw falls as 1/M; value rows and time grow with M, rows drawn twice are read once.
    value_aware : bool
        Which of the two laws. 16 more index bits a token and KV head, 32 on a CPU; where every |v| is zero the law is
        uniform. Value vectors are zero or at least 1e-32 long for the value-aware one; shorter ones are refused.

    Raises
    ------
    TypeError, ValueError
        For settings that are no counts or out of range, as `Socket`.

    References
    ----------
    Joshi et al., "SOCKET: SOft Collision Kernel EsTimator for Sparse Attention", arXiv 2602.06283, Theorem 3, here in
    the form of S9-S12.
    """

    num_samples: int = 1024
    value_aware: bool = False

    takes: ClassVar[frozenset[str]] = frozenset({"key"})
    query_side: ClassVar[tuple[str, ...]] = (*SoftHashing.query_side, "num_samples")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "num_samples", require_count("num_samples", self.num_samples))
        object.__setattr__(self, "value_aware", require_flag("value_aware", self.value_aware))

    def index(self, rows: Rows, sample: Planes, frozen: dict[str, Any]) -> TokenIndex:
        return hashed(rows, sample, frozen, norms=self.value_aware)

    def step(self, step: Step) -> Outcome:
        own, rows = operations(FAMILY, step.backend), step.rows
        points = head_uniforms(step.key, step.query.shape, np.arange(self.num_samples), step.number)
        norms = step.index.arrays.get("value_norms")
        value, lse, used = own.sample(self._log_scores(step), rows.values, rows.kv_range, norms, points)
        return Outcome(value, lse, used, "angular")

    def expectation(self, query: Any, cache: Cache, *, out_dtype: Any | None = None) -> Estimate:
        """y_{tau,L} itself, which `attend` estimates without bias. Shapes and errors as `attend`, for one token."""
        native = checked_query(query, cache, self)
        if native.ndim != 3:
            raise ValueError(f"query of shape {tuple(query.shape)} was given: pass one token per sequence.")
        step = Step(native, cache, checked_scale(None, native.shape[-1]))
        with callers_stream(cache.array_type):
            value, lse = step.backend.average(self._log_scores(step), step.rows)
            dtype = native.dtype if out_dtype is None else output_dtype(out_dtype)
            return finish(step, Outcome(value, lse, step.everything(), "angular"), dtype)

    def _log_scores(self, step: Step) -> Any:
        own, codes = operations(FAMILY, step.backend), step.index.arrays["codes"]
        at = (step.rows.kv_range, step.sample, self.query_map, self.temperature)
        return own.log_soft_scores(step.query, codes, *at)
