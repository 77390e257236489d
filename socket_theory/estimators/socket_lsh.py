"""SOCKET: rank every token by its soft collision with the query, attend exactly to the best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from socket_theory.backend import Backend
from socket_theory.checks import MIN_VALUE_NORM, require_flag, require_norms, require_positive
from socket_theory.estimators.method import HashingMethod, refuse
from socket_theory.estimators.step import Step
from socket_theory.hashing import QueryMap, query_map_bound
from socket_theory.rng import Key

# Log weights of any accepted query stay finite down to here.
LEAST_TEMPERATURE = 1e-30


@dataclass(frozen=True)
class SoftHashing(HashingMethod):
    """The settings and the index that SOCKET's decode and its sampling estimator share."""

    query_map: QueryMap = "tanh_scaled"
    temperature: float = 0.4

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


def checked_norms(backend: Backend, values: Any, spans: Any) -> Any:
    """|v| rounded to bfloat16 [B, Hkv, N], or ValueError for a vector too short to be told from zero."""
    norms = backend.value_norms(values, spans)
    lengths = np.asarray(backend.to_host(norms)).astype(np.float64)
    for row, (start, length) in enumerate(np.asarray(spans).tolist()):
        seen = slice(start, start + length)
        if (lengths[row, :, seen] < MIN_VALUE_NORM).any():
            # On the host, as a GPU may take the smallest numbers for zeros.
            require_norms(lengths[row, :, seen], np.asarray(backend.to_host(values[row, :, seen])))
    return norms


@dataclass(frozen=True)
class Socket(SoftHashing):
    """Deterministic top-k decode by soft LSH scores.

    score_i = mean over tables of prod_p sigma(2 h_p s_ip / temperature), times |v_i| if `value_weight`;
    the kept tokens get exact softmax attention.

    Parameters
    ----------
    num_planes, num_tables : int
        P and L; P <= 16. The paper uses 10 and 60.
    query_map : {"tanh_scaled", "tanh", "linear"}
        h = tanh(z)/sqrt(d), tanh(z) or z.
    temperature : float
        tau > 0: towards 0 hard LSH, towards infinity the sign sketch (S2).
    value_weight : bool
        Multiply the score by |v_i| rounded to bfloat16. Value vectors are zero or at least 1e-32 long then; shorter
        ones are refused.
    center_keys : bool
        Hash k - c, c the mean key of the KV head at `prepare`.

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

    def choose_center(self, backend: Backend, keys: Any, spans: Any, center: Any | None) -> Any | None:
        if not self.center_keys:
            refuse(self, center=center)
            return None
        return backend.mean_keys(keys, spans) if center is None else center

    def index(self, backend: Backend, keys: Any, values: Any, spans: Any, planes: Any, center: Any) -> dict[str, Any]:
        codes = {"codes": backend.hash_keys(keys, spans, planes, center)}
        return codes | ({"value_norms": checked_norms(backend, values, spans)} if self.value_weight else {})

    def scores(self, step: Step, key: Key | None) -> Any:
        cache, backend = step.cache, step.cache.backend
        shared = {"shared": True} if step.shared else {}
        scores = backend.soft_scores(
            step.query, cache.arrays["codes"], cache.spans, cache.planes, self.query_map, self.temperature, **shared
        )
        return backend.weigh_scores(scores, cache.arrays["value_norms"], **shared) if self.value_weight else scores
