"""What a decode step returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from socket_theory.core.attention import AttentionState, Kind


@dataclass(frozen=True, eq=False)
class Stats:
    """What a step kept and read. Arrays have the shape of the query without head_dim, [..., Hq], unless said.

    Parameters
    ----------
    kept : int array
        Distinct tokens used by each query head.
    density : float array
        kept over valid tokens.
    nominal_bits : int
        Index bits a token by the method's own count, num_tables x num_planes; 0 without an index.
    bits_per_token : int
        Index bits per token and KV head, as this backend stores them.
    bytes : int array [...]
        Bytes read a sequence: the index of every valid token, and the union of kept rows over each GQA group; every
        valid key for the methods that score by all of them.
    captured_mass : float array or None
        Exact softmax mass of the kept tokens, where the method knows it.
    """

    kept: Any
    density: Any
    nominal_bits: int
    bits_per_token: int
    bytes: Any
    captured_mass: Any = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What `Method.step` returns, in the arrays of the backend.

    Parameters
    ----------
    value, lse : arrays [B, Hq, E] and [B, Hq]
    used : int32 array [B, Hq, K]
        Slots of the tokens used, ascending, padded with -1.
    weighting : {"softmax", "angular"}
        What the weights are whose total lse is the logarithm of: exp(logit), or a collision probability.
    captured_mass : float array [B, Hq], optional
        Exact softmax mass of the tokens used, where the method knows it.
    carry : object, optional
        For the next layer.
    """

    value: Any
    lse: Any
    used: Any
    weighting: Kind = "softmax"
    captured_mass: Any = None
    carry: Any = None


@dataclass(frozen=True, eq=False)
class Estimate:
    """The result of `attend`. For T new tokens of a sequence, every shape [..., Hq] is [..., Hq, T].

    Parameters
    ----------
    value : array [..., Hq, E]
        The estimate, in the query's dtype or `out_dtype`.
    lse : array [..., Hq]
        Natural log of the total weight used: of exp(logits) for softmax methods, of the collision
        probabilities Z-bar for angular ones. With Bernoulli scores the logits are the sampled ones: it is above
        the exact one on average, and a merge that uses it is biased.
    indices : int32 array [..., Hq, K]
        Slots of the tokens used, ascending, padded with -1.
    stats : Stats
    kind : {"softmax", "angular"}
    carry : object or None
        What the method hands on to the next layer, for its `attend` to take; one a token, in a tuple, for T tokens.
    """

    value: Any
    lse: Any
    indices: Any
    stats: Stats
    kind: Kind = "softmax"
    carry: Any = None

    @property
    def state(self) -> AttentionState:
        """The estimate as a state, for `merge_states` with disjoint token sets."""
        return AttentionState(self.value, self.lse, self.kind)
