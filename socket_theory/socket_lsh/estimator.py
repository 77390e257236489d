"""SOCKET: rank every token by its soft collision with the query, attend exactly to the best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from socket_theory.core.backend import operations
from socket_theory.core.checks import MIN_VALUE_NORM, require_flag, require_norms, require_positive
from socket_theory.core.hashing import Planes, QueryMap, query_map_bound
from socket_theory.core.hashing_method import HashingMethod
from socket_theory.core.index import TokenIndex
from socket_theory.core.rows import Rows
from socket_theory.core.selector import Selector
from socket_theory.core.step import Step
from socket_theory.socket_lsh.operations import FAMILY, SocketOperations

# Log weights of any accepted query stay finite down to here.
LEAST_TEMPERATURE = 1e-30


@dataclass(frozen=True)
class SoftHashing(HashingMethod, abstract=True):
    """The settings that SOCKET's decode and its sampling estimator share; `Socket` defines them."""

    num_planes: int = 10
    num_tables: int = 60
    query_map: QueryMap = "tanh_scaled"
    temperature: float = 0.4

    query_side: ClassVar[tuple[str, ...]] = ("query_map", "temperature")

    def __post_init__(self) -> None:
        super().__post_init__()
        query_map_bound(self.query_map, 1)
        temperature = require_positive("temperature", self.temperature)
        if temperature < LEAST_TEMPERATURE:
            raise ValueError(
                f"temperature={temperature} was given: pass {LEAST_TEMPERATURE:g} or more, or use HardLSH."
            )
        object.__setattr__(self, "temperature", temperature)

    @property
    def nominal_bits(self) -> int:
        return self.num_planes * self.num_tables


def hashed(rows: Rows, planes: Planes, frozen: dict[str, Any], *, norms: bool) -> TokenIndex:
    """The codes of `rows`, and with `norms` the norms of their values: the index of SOCKET's methods."""
    own = operations(FAMILY, rows.backend)
    arrays = {"codes": own.hash_keys(rows.keys, rows.kv_range, planes, frozen.get("center"))}
    if norms:
        arrays["value_norms"] = _checked_norms(own, rows)
    index: TokenIndex = own.index_type(arrays, frozen)
    return index


def _checked_norms(own: SocketOperations, rows: Rows) -> Any:
    """|v| rounded to bfloat16 [B, Hkv, N], or ValueError for a vector too short to be told from zero."""
    backend, values = rows.backend, rows.values
    norms = own.value_norms(values, rows.kv_range)
    lengths = np.asarray(backend.to_host(norms)).astype(np.float64)
    for row, (start, length) in enumerate(np.asarray(rows.kv_range).tolist()):
        seen = slice(start, start + length)
        if (lengths[row, :, seen] < MIN_VALUE_NORM).any():
            # On the host, as a GPU may take the smallest numbers for zeros.
            require_norms(lengths[row, :, seen], np.asarray(backend.to_host(values[row, :, seen])))
    return norms


@dataclass(frozen=True)
class Socket(SoftHashing, Selector):
    """Deterministic top-k decode: rank all tokens by soft hash collisions, attend exactly to the best.

    For a query q and the key k_i and value v_i of token i, all of one head:

    - planes w_lp, for tables l = 1..L and p = 1..P, are Gaussian vectors of length d = head_dim, drawn at `prepare` and
      shared by the KV heads;
    - z_lp = <w_lp, q> is the query's projection and h_lp = query_map(z_lp) what is made of it;
    - s_ilp = +1 where <w_lp, k_i> >= 0, else -1; the P signs of table l are the token's code in it;
    - score_i = (1/L) sum_l prod_p sigma(2 h_lp s_ilp / tau), with tau the temperature and
      sigma(x) = 1/(1 + exp(-x)). The product over p is the probability that the softened query falls into the token's
      bucket of table l (S1), larger the more of the P signs agree with those of h.

    The budget's tokens with the largest scores get exact softmax attention, so without a budget the step is exact; the
    error is that of the tokens left out (S13). Scores rank by angle: a key's length does not enter.

    A step reads the index of every valid token, and keys and values of the kept ones only. A token has P L index bits a
    KV head; stored are 16 L on a CPU and P times L rounded up to a multiple of 32 on a GPU. The time is that of reading
    them, in proportion to tokens and tables.

    Parameters
    ----------
    num_planes : int
        P from 1 to 16, as in the paper 10. More planes tell close keys apart better, as a collision gets rarer, but a
        score then rests on fewer tables and is noisier: raise L with it. Bits and time grow with P, but for the bits on
        a CPU; beyond 10 planes a GPU takes longer.
    num_tables : int
        L >= 1, as in the paper 60. The noise of a score falls as 1/sqrt(L) (S7, S14), and with it the error, down to
        that of the true collision probability. Bits, time and the memory of the index grow as L.
    query_map : {"tanh_scaled", "tanh", "linear"}
        h = tanh(z)/sqrt(d), the released code; tanh(z), the paper; or z, which does not saturate. "tanh_scaled" at tau
        is "tanh" at tau sqrt(d). Free in bytes.
    temperature : float
        tau > 0. Raised, weights grow more alike and less noisy: towards 0 the score is hard LSH's count of matches,
        towards infinity it ranks as the sign sketch sum_lp h_lp s_ilp (S2). Neither end is best for all inputs. On one
        real model .4 had a mean error of .089 and 1 one of .078: :doc:`/guide/real_attention` has the measurement, and
        why the default is .4. Free in bytes; a GPU takes longer where h/tau is large, for "tanh_scaled" at tau below
        about .4, for "tanh" below about 3.
    value_weight : bool
        Multiply score_i by the Euclidean norm of v_i rounded to bfloat16, as the released code does. 16 more bits a
        token and KV head, 32 on a CPU. On the same model it made every setting worse. Value vectors are zero or at
        least 1e-32 long then; shorter ones are refused.
    center_keys : bool
        Hash k_i - c instead of k_i, where c is the KV head's mean valid key at `prepare`, or its argument `center`;
        appended tokens use the same c. Softmax attention does not change when all keys are shifted, angles do. Free in
        bytes and time.

    Raises
    ------
    TypeError, ValueError
        For a count that is no integer or out of range, an unknown query_map, or a temperature below 1e-30.

    See Also
    --------
    Cache.with_method : Another temperature or query_map on a prepared cache.

    References
    ----------
    Joshi et al., "SOCKET: SOft Collision Kernel EsTimator for Sparse Attention", arXiv 2602.06283;
    claims S1-S7, S13-S15.
    """

    value_weight: bool = False
    center_keys: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("value_weight", "center_keys"):
            object.__setattr__(self, name, require_flag(name, getattr(self, name)))

    @classmethod
    def as_released(cls) -> Socket:
        """The authors' released code: tanh divided by sqrt(d), scores times |v|."""
        return cls(value_weight=True)

    @classmethod
    def as_documented(cls) -> Socket:
        """The paper's text: tanh without the division, scores times |v|."""
        return cls(query_map="tanh", value_weight=True)

    def freezes(self, num_kv_heads: int, head_dim: int) -> dict[str, tuple[int, ...]]:
        return {"center": (num_kv_heads, head_dim)} if self.center_keys else {}

    def index(self, rows: Rows, sample: Planes, frozen: dict[str, Any]) -> TokenIndex:
        if self.center_keys and "center" not in frozen:
            frozen = {"center": operations(FAMILY, rows.backend).mean_keys(rows.keys, rows.kv_range)}
        return hashed(rows, sample, frozen, norms=self.value_weight)

    def scores(self, step: Step) -> Any:
        own, arrays = operations(FAMILY, step.backend), step.index.arrays
        at = (step.rows.kv_range, step.sample, self.query_map, self.temperature)
        scores = own.soft_scores(step.query, arrays["codes"], *at, shared=step.shared)
        return own.weigh_scores(scores, arrays["value_norms"], shared=step.shared) if self.value_weight else scores
