"""RACE: attention by soft collisions of queries and keys, from sums over buckets and no kept keys or values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from socket_theory.core.cache import Cache
from socket_theory.core.causal import Chunk
from socket_theory.core.estimate import Outcome
from socket_theory.core.hashing import Planes
from socket_theory.core.hashing_method import HashingMethod
from socket_theory.core.index import SumIndex
from socket_theory.core.rows import Rows
from socket_theory.core.step import Step
from socket_theory.race.features import require_beta, require_features
from socket_theory.race.passes import read_causally, read_sums, sums_of_tokens
from socket_theory.race.sums import BucketSums


@dataclass(frozen=True)
class Race(HashingMethod):
    """Attention whose cache does not grow: sums over soft hash buckets, and neither keys nor values.

    For a query q and the key k_j and value v_j of token j, all of one head:

    - planes w_lp, for tables l = 1..L and p = 1..P, are Gaussian vectors of length d = head_dim, drawn at `prepare` and
      shared by the KV heads;
    - phi_l(x)_r = prod_p sigma(2 beta c_rp tanh <w_lp, x>), with sigma(x) = 1/(1 + exp(-x)), is the share of x in
      bucket r of table l, whose corner c_r is in {-1, +1}^P;
    - the weight of token j is w-bar_j = mean_l <phi_l(q), phi_l(k_j)>, the probability that q and k_j, both softened,
      fall into the same bucket (R1), and the estimate is sum_j w-bar_j v_j / sum_j w-bar_j.

    Both sums need of the tokens only A_l = sum_j phi_l(k_j) and B_l = sum_j phi_l(k_j) v_j: L 2^P (1 + E) numbers a KV
    head, which an append adds to. A step takes time L 2^P E however many tokens there are, but for listing them; a
    prefill of T tokens T L 2^P (D + E), no N x N array. As no token can be taken out of a sum, `Cache.truncate` is
    refused, and with it a query of several tokens: `prefill` over the cache is the way to many outputs.

    What it estimates is angular attention, weights (1 - theta/pi)^P, and not softmax attention: lengths of queries and
    keys enter only through how far they saturate the tanh, and sm_scale does not enter at all. Bias falls and variance
    over planes grows with beta (R3, R10).

    Parameters
    ----------
    num_planes : int
        P >= 1. More planes weigh close keys more, as (1 - theta/pi)^P does. State and time grow as 2^P.
    num_tables : int
        L >= 1, L 2^P at most 4096. The noise of weights falls as 1/sqrt(L); state and time grow as L.
    beta : float
        Above 0, and beta P at most 80. Towards 0 all tokens weigh the same and the estimate is the mean of the values,
        as with the released code's 1/sqrt(d); large ones approach hard buckets. Of .125, 1, 2 and 10 the default of 1
        is nearest to angular attention with P = L = 4, d = 64 and 400 tokens in 20 clusters, and 2 is with 16 tables:
        raise beta with L.

    Raises
    ------
    TypeError, ValueError
        For a count that is no integer or out of range, more than 4096 features, or a beta that is not above 0 or so
        large that features vanish.

    See Also
    --------
    race_attention : The same of whole sequences, causal or not.

    References
    ----------
    Joshi et al., "RACE Attention: A Strictly Linear-Time Attention for Long-Sequence Training", arXiv 2510.04008;
    claims R1-R10.
    """

    num_planes: int = 4
    num_tables: int = 4
    beta: float = 1.0

    takes: ClassVar[frozenset[str]] = frozenset()
    keeps_rows: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_features(self.num_planes, self.num_tables)
        object.__setattr__(self, "beta", require_beta(self.beta, self.num_planes))

    def index(self, rows: Rows, sample: Planes, frozen: dict[str, Any]) -> SumIndex:
        place = rows.backend.to_device
        slots, start, length = np.arange(rows.shape[2]), rows.kv_range[:, :1], rows.kv_range[:, 1:]
        valid = place((slots >= start) & (slots < start + length))
        sums = sums_of_tokens(rows.keys, rows.values, valid, place(sample.weights), self.beta)
        return SumIndex({"mass": sums.mass, "weighted": sums.weighted})

    def step(self, step: Step) -> Outcome:
        weights = step.backend.to_device(step.sample.weights)
        value, lse = read_sums(step.query[:, :, None], _sums(step.cache), weights, self.beta)
        return Outcome(value[:, :, 0], lse[:, :, 0], step.everything(), "angular")

    def causal(self, chunk: Chunk) -> tuple[Any, Any]:
        weights = chunk.cache.backend.to_device(chunk.cache.sample.weights)
        keys, values = chunk.new.keys, chunk.new.values
        before = BucketSums.of_none(values, weights) if chunk.before is None else _sums(chunk.before)
        return read_causally(chunk.query, keys, values, chunk.valid, before, weights, self.beta)


def _sums(cache: Cache) -> BucketSums:
    return BucketSums(**cache.index.arrays)
