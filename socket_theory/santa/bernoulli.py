"""Bernoulli scores: exact attention of a query rounded at random to few ternary vectors (N11, N12)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from socket_theory.core.checks import require_count, require_flag
from socket_theory.core.definition import require_key
from socket_theory.core.draws import head_uniforms
from socket_theory.core.estimate import Outcome
from socket_theory.core.method import Method
from socket_theory.core.rng import Key
from socket_theory.core.step import Step
from socket_theory.santa.estimator import Santa
from socket_theory.santa.query import (
    QuerySampler,
    firing_probabilities,
    group_magnitudes,
    iid_hits,
    require_query_sampler,
    sampled_query,
    shared_sampled_queries,
    stratified_hits,
)


@dataclass(frozen=True)
class Bernoulli(Method):
    """Softmax attention with the scores of a sampled query: unbiased scores, but a biased softmax.

    Feature i of the query q, of D = head_dim, fires in each of B ternary vectors with probability
    pi_i = |q_i| / max_j |q_j|. With hits_i the number of vectors it fired in, q^_i = sign(q_i) max_j |q_j| hits_i / B,
    so E q^ = q (N11). Logits are sm_scale <q^, k_j>, unbiased for those of q; their softmax is not unbiased, because it
    is no linear function of them (`santa.query.softmax_bias`, N12).

    The lse is that of the sampled scores, on average above the exact one: a merge with exact states, which nothing
    forbids, gives this part too much weight and is biased by that too. Key features that never fire need no reading,
    but rows of a cache are read whole, so `stats.bytes` counts every key.

    Parameters
    ----------
    num_vectors : int
        B >= 1 ternary vectors. The variance of q^ is in proportion to 1/B with "iid", and at most
        (max_j |q_j| / B)^2 / 4 with "stratified"; the bias of the softmax falls with it. The share of key features that
        some vector needs rises with B towards 1.
    query_sampler : {"stratified", "iid"}
        hits = floor(B pi) + Bernoulli(frac(B pi)), or Binomial(B, pi), whose variance is never less.
    shared_query : bool
        One draw for the query heads g of a KV head, of the mean m of their magnitudes |q_g|; head g uses (m^/m) q_g,
        with m^ the sampled m. Fewer key features fire in any head, for more error.

    Raises
    ------
    TypeError, ValueError
        For a num_vectors that is no integer of at least 1, an unknown query_sampler or a flag that is no bool.

    References
    ----------
    Lee et al., "Stochastic Sparse Attention for Memory-Bound Inference", arXiv 2605.01910; claims N11, N12.
    """

    num_vectors: int = 16
    query_sampler: QuerySampler = "stratified"
    shared_query: bool = False

    takes: ClassVar[frozenset[str]] = frozenset({"sm_scale", "key"})
    reads_every_key: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_vectors", require_count("num_vectors", self.num_vectors))
        require_query_sampler("query_sampler", self.query_sampler)
        object.__setattr__(self, "shared_query", require_flag("shared_query", self.shared_query))

    @property
    def scoring(self) -> Bernoulli:
        """The method that draws the query: this one."""
        return self

    def step(self, step: Step) -> Outcome:
        used = step.everything()
        value, lse = step.backend.attend(self.sample_query(step, step.key), step.rows, used, step.sm_scale)
        return Outcome(value, lse, used)

    def sample_query(self, step: Step, key: Key | None) -> Any:
        """q^ [B, Hq, D], float64 for float64 keys and else float32: 16 bits would round it with a bias."""
        rows, (batch, _, dim) = step.rows, step.query.shape
        wide = np.asarray(step.backend.to_host(step.query)).astype(np.float64)
        if self.shared_query:
            grouped = wide.reshape(batch, rows.shape[1], -1, dim)
            hits = self._hits(group_magnitudes(grouped), step, key, grouped.shape[2])
            drawn = shared_sampled_queries(grouped, hits, self.num_vectors).reshape(wide.shape)
        else:
            drawn = sampled_query(wide, self._hits(wide, step, key, 1), self.num_vectors)
        double = np.dtype(rows.dtypes[0]).itemsize == 8
        return step.backend.to_device(drawn.astype(np.float64 if double else np.float32))

    def _hits(self, magnitudes: Any, step: Step, key: Key | None, heads_a_draw: int) -> Any:
        """Hits [B, H, D], at the uniforms of every `heads_a_draw`-th query head."""
        law, dim = firing_probabilities(magnitudes), magnitudes.shape[-1]
        if self.query_sampler == "stratified":
            return stratified_hits(
                law,
                self.num_vectors,
                head_uniforms(key, step.query.shape, np.arange(dim), step.number)[:, ::heads_a_draw],
            )
        items = np.arange(self.num_vectors * dim)
        points = head_uniforms(key, step.query.shape, items, step.number)[:, ::heads_a_draw]
        return iid_hits(law, points.reshape(*law.shape[:-1], self.num_vectors, dim))


@dataclass(frozen=True)
class BernoulliSanta(Santa):
    """Bernoulli scores and sampled values: unbiased for `Bernoulli` given q^, not for `Dense`.

    The total covariance is E Cov(value | q^) + Cov(softmax(q^K') V) (N12). What `Santa` says of its lse does not hold:
    this one is that of the sampled scores, with the bias of `Bernoulli`'s, and so is a merge with exact states. The
    captured mass is not known, as no exact score is computed.

    Parameters
    ----------
    num_samples, sampler, tile_len
        As `Santa`.
    num_vectors, query_sampler, shared_query
        As `Bernoulli`. q^ is drawn from `key.fold_in("query")`.
    """

    num_vectors: int = 16
    query_sampler: QuerySampler = "stratified"
    shared_query: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        scoring = self.scoring
        for name in ("num_vectors", "shared_query"):
            object.__setattr__(self, name, getattr(scoring, name))

    @property
    def scoring(self) -> Bernoulli:
        """The method of its scores alone."""
        return Bernoulli(self.num_vectors, self.query_sampler, self.shared_query)

    def scored_query(self, step: Step) -> Any:
        return self.scoring.sample_query(step, require_key(self, step.key).fold_in("query"))
