"""How well scores find and order the true top k among Gaussian keys: SOCKET against hard LSH.

Keys and queries are independent standard Gaussian vectors, the truth is the exact logit, and the scores are the
methods' own, ties included: the later token ranks first, as in a decode step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from socket_theory.core.baselines import OracleTopK
from socket_theory.core.cache import Cache
from socket_theory.core.check_query import checked_scale
from socket_theory.core.checks import require_count
from socket_theory.core.hashing import QueryMap, SignHash
from socket_theory.core.rng import Key
from socket_theory.core.selection import rank_keys
from socket_theory.core.selector import Selector
from socket_theory.core.step import Step
from socket_theory.core.workers import results_of
from socket_theory.socket_lsh.estimator import Socket
from socket_theory.socket_lsh.hard_lsh import HardLSH

Float = NDArray[np.float64]
Ranker = HardLSH | Socket
NAMES: dict[type[Ranker], str] = {HardLSH: "hard_lsh", Socket: "socket"}
MEASURES = ("precision", "jaccard", "ndcg", "spearman", "kendall")
SETTINGS: tuple[tuple[QueryMap, float], ...] = (
    ("tanh", 0.4),
    ("tanh", 1.0),
    ("tanh", 3.0),
    ("tanh_scaled", 0.4),
    ("linear", 30.0),
)


@dataclass(frozen=True)
class RankingSize:
    """The problem: `num_keys` keys of `head_dim`, `num_queries` queries for each of `num_trials` draws of the keys."""

    num_keys: int = 4096
    head_dim: int = 128
    num_trials: int = 16
    num_queries: int = 4

    def __post_init__(self) -> None:
        require_count("num_keys", self.num_keys, least=2)
        require_count("head_dim", self.head_dim)
        require_count("num_trials", self.num_trials, least=2)
        require_count("num_queries", self.num_queries)


@dataclass(frozen=True)
class Row:
    """One method: for each of MEASURES one mean a k, over queries and trials, and its standard error over trials."""

    method: str
    settings: dict[str, Any]
    means: dict[str, list[float]]
    standard_errors: dict[str, list[float]]


def rankers(num_planes: Sequence[int], num_tables: Sequence[int]) -> list[Ranker]:
    """Hard LSH and SOCKET at every setting of SETTINGS, for each number of planes and tables."""
    methods: list[Ranker] = []
    for planes, tables in product(num_planes, num_tables):
        methods.append(HardLSH(planes, tables))
        methods += [Socket(planes, tables, query_map=name, temperature=tau) for name, tau in SETTINGS]
    return methods


def evaluate_ranking(
    methods: Sequence[Ranker],
    ks: Sequence[int],
    size: RankingSize,
    *,
    seed: int = 0,
    on_trial: Callable[[], None] = lambda: None,
) -> list[Row]:
    """One row for each method.

    Trials go through joblib, so `joblib.parallel_config` decides where they run. All methods see the same
    keys and queries, and those with the same numbers of planes and tables the same planes.

    Raises
    ------
    ValueError
        If there is no k, or one lies outside [1, num_keys].
    """
    if not ks or not all(1 <= require_count("k", k) <= size.num_keys for k in ks):
        raise ValueError(f"ks={list(ks)} were given for {size.num_keys} keys: pass integers from 1 to {size.num_keys}.")
    key = Key.from_seed(seed)
    work = [joblib.delayed(run_trial)(methods, ks, size, key.fold_in("trial", i)) for i in range(size.num_trials)]
    trials = []
    for trial in results_of(work):
        trials.append(trial)
        on_trial()
    measured = np.stack(trials)
    means, errors = measured.mean(axis=0), measured.std(axis=0, ddof=1) / np.sqrt(len(measured))
    return [
        Row(
            method=NAMES[type(method)],
            settings=asdict(method),
            means=dict(zip(MEASURES, means[place].T.tolist(), strict=True)),
            standard_errors=dict(zip(MEASURES, errors[place].T.tolist(), strict=True)),
        )
        for place, method in enumerate(methods)
    ]


def run_trial(methods: Sequence[Ranker], ks: Sequence[int], size: RankingSize, key: Key) -> Float:
    """Means over the queries of one draw of keys, queries and planes: [methods, ks, MEASURES]."""
    draw = key.fold_in("vectors").generator()
    keys = draw.standard_normal((1, size.num_keys, size.head_dim))
    query = draw.standard_normal((size.num_queries, size.head_dim))
    caches: dict[tuple[int, int], Cache] = {}
    for method in methods:
        shape = (method.num_tables, method.num_planes)
        if shape not in caches:
            planes = SignHash(*shape, size.head_dim).draw(key)
            caches[shape] = method.prepare(keys, keys[..., :1], sample=planes)
    truth = scores_of(OracleTopK(), query, next(iter(caches.values())))
    measured = []
    for method in methods:
        found = scores_of(method, query, caches[method.num_tables, method.num_planes])
        measured.append(np.mean([agreement(*pair, ks) for pair in zip(truth, found, strict=True)], axis=0))
    return np.stack(measured)


def scores_of(method: Selector, query: Float, cache: Cache) -> Float:
    """What a decode step of `method` ranks by: query [Hq, D] over a cache of one sequence -> [Hq, N]."""
    step = Step(query[None], replace(cache, method=method), checked_scale(None, query.shape[-1]))
    return np.asarray(method.scores(step)[0], dtype=np.float64)


def agreement(truth: Float, scores: Float, ks: Sequence[int]) -> Float:
    """MEASURES of the first k by `scores` against the first k by `truth`: two arrays [N] -> [ks, 5].

    With S and T these two sets: precision |S and T|/k; Jaccard |S and T|/|S or T|; NDCG with a token's softmax mass as
    its gain, sum_r mass(r)/log2(r + 1) over the best possible sum; Spearman's and Kendall's (tau-b) correlation of
    scores and truth over T, 0 where the scores of T are all equal, or where k = 1.
    """
    best, found = (np.argsort(rank_keys(given))[::-1] for given in (truth, scores))
    place = np.empty(len(truth), dtype=np.int64)
    place[best] = np.arange(len(truth))
    gain, discount = np.exp(truth - truth.max()), 1 / np.log2(np.arange(len(truth)) + 2)
    reached, ideal = (np.cumsum(gain[order] * discount) for order in (found, best))
    rows = []
    for k in ks:
        hits = int((place[found[:k]] < k).sum())
        ordered = correlations(truth[best[:k]], scores[best[:k]])
        rows.append((hits / k, hits / (2 * k - hits), reached[k - 1] / ideal[k - 1], *ordered))
    return np.array(rows)


def correlations(truth: Float, scores: Float) -> tuple[float, float]:
    """Spearman's rho and Kendall's tau-b; 0 where either side is constant, which orders nothing."""
    if np.ptp(truth) == 0 or np.ptp(scores) == 0:
        return 0.0, 0.0
    return float(spearmanr(truth, scores).statistic), float(kendalltau(truth, scores).statistic)
