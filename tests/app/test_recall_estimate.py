"""The recall to expect of a number of tables (S14), against tables that are drawn.

Keys are Gaussian, share their noise, or are captured ones where the weights of a model have been fetched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from socket_theory.bounds.recall import KeyScores
from socket_theory.evaluate.prefill import capture_text, default_text
from socket_theory.evaluate.weights import MissingWeightsError, find_weights
from socket_theory.socket_lsh.bounds.recall_estimate import RecallEstimate
from socket_theory.socket_lsh.law import SoftKernel

COUNT, K, HEAD_DIM = 1024, 51, 128
EQUAL_KEYS = RecallEstimate.of(SoftKernel(2, 1.0, "tanh", 4), np.ones(4), np.ones((4, 4)), 2)
DEPLOYED = SoftKernel(10, 0.4, "tanh_scaled", HEAD_DIM)


def gaussian_keys(rng: np.random.Generator, count: int, head_dim: int) -> tuple[NDArray[Any], NDArray[Any]]:
    query = rng.standard_normal(head_dim)
    return 11 * query / np.linalg.norm(query), rng.standard_normal((count, head_dim))


def keys_around_a_direction(rng: np.random.Generator, count: int, head_dim: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """As the keys of one text: what is orthogonal to the query points one way, and their noise is shared."""
    query, keys = gaussian_keys(rng, count, head_dim)
    return query, keys + 4 * rng.standard_normal(head_dim)


def measured_recall(
    kernel: SoftKernel, query: NDArray[Any], keys: NDArray[Any], k: int, tables: list[int], trials: int
) -> list[float]:
    """Mean recall of the top k by angle at each number of tables, ties in random order."""
    rng, sums = np.random.default_rng(7), np.zeros((trials, len(tables)))
    truth = np.argsort(-(keys @ query) / np.linalg.norm(keys, axis=1))[:k]
    query, keys = query.astype(np.float32), keys.astype(np.float32)
    for trial in range(trials):
        scores = np.zeros(len(keys))
        for table in range(1, max(tables) + 1):
            planes = rng.standard_normal((len(query), kernel.num_planes), dtype=np.float32)
            slope = np.tanh(np.tanh(query @ planes) / math.sqrt(len(query)) / kernel.temperature)
            scores += (0.5 + np.copysign(0.5 * slope, (keys @ planes) * slope)).prod(axis=1)
            if table in tables:
                shuffled = np.lexsort((rng.random(len(keys)), -scores))[:k]
                sums[trial, tables.index(table)] = np.isin(shuffled, truth).mean()
    return [float(mean) for mean in sums.mean(axis=0)]


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("keys_of", "recall", "trials"),
    [(gaussian_keys, 0.56, 8), (gaussian_keys, 0.8, 2), (keys_around_a_direction, 0.4, 3)],
)
def test_the_estimate_finds_the_tables_of_a_recall_within_a_factor_of_two(
    keys_of: Callable[..., Any], recall: float, trials: int
) -> None:
    query, keys = keys_of(np.random.default_rng(2), COUNT, HEAD_DIM)
    estimate = RecallEstimate.of(DEPLOYED, query, keys, K)
    tables = estimate.tables(recall)
    assert estimate.expected_recall(tables) >= recall > estimate.expected_recall(tables - 1)
    half, twice = measured_recall(DEPLOYED, query, keys, K, [tables // 2, 2 * tables], trials)
    assert half < recall < twice


@pytest.mark.statistical
def test_without_the_covariance_of_the_weights_the_estimate_is_off_by_more_than_two() -> None:
    query, keys = keys_around_a_direction(np.random.default_rng(2), COUNT, HEAD_DIM)
    estimate = RecallEstimate.of(DEPLOYED, query, keys, K)
    independent = replace(estimate, covariance=np.diag(np.diag(estimate.covariance))).tables(0.56)
    (half,) = measured_recall(DEPLOYED, query, keys, K, [independent // 2], 2)
    assert half > 0.56


def test_the_proved_tables_exceed_the_estimate_and_say_something_at_the_deployed_kernel() -> None:
    query, keys = gaussian_keys(np.random.default_rng(3), COUNT, HEAD_DIM)
    theta = np.arccos(keys @ query / np.linalg.norm(keys, axis=1) / np.linalg.norm(query))
    scores = KeyScores(DEPLOYED.mean(theta, 11.0), DEPLOYED.variance(theta, 11.0), DEPLOYED.weight_range())
    estimate = RecallEstimate.of(DEPLOYED, query, keys, K)
    assert estimate.tables(0.56) < scores.recall_tables(K, 0.56, 0.05) < 30_000
    for tables in (1000, 10_000):
        assert 0.2 < scores.expected_recall_bound(K, tables) < estimate.expected_recall(tables)


@pytest.mark.llm
@pytest.mark.slow
@pytest.mark.parametrize(("layer", "centred"), [(15, False), (15, True), (28, False)])
def test_the_estimate_holds_for_a_captured_head(llm: SimpleNamespace, layer: int, centred: bool) -> None:
    try:
        weights: Path = find_weights("smollm2")
    except MissingWeightsError as missing:
        pytest.skip(str(missing))
    capture = capture_text(weights, default_text(), context=2048, count=8)
    query, keys = capture.q[layer, 4, -1].astype(np.float64), capture.k[layer, 1].astype(np.float64)
    keys = keys - keys.mean(axis=0) if centred else keys
    kernel, k = SoftKernel(10, 0.4, "tanh_scaled", 64), 102
    estimate = RecallEstimate.of(kernel, query, keys, k)
    for recall, trials in ((0.56, 16), (0.8, 2)):
        tables = estimate.tables(recall)
        half, twice = measured_recall(kernel, query, keys, k, [tables // 2, 2 * tables], trials)
        assert half < recall < twice


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: RecallEstimate.of(SoftKernel(2, 1.0, "tanh", 3), np.ones(4), np.eye(4), 1), r"query has shape \(4,\)"),
        (lambda: RecallEstimate.of(SoftKernel(2, 1.0, "tanh", 4), np.ones(4), np.eye(4), 4), "k=4 was given for 4"),
        (lambda: EQUAL_KEYS.tables(1.0), r"recall=1.0 was given: pass an expected share in \(0, 1\)"),
        (lambda: EQUAL_KEYS.tables(0.9), r"recall=0.9 needs more than 1e12 tables: pass a smaller recall"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize("keys", [np.outer(np.arange(1, 6), np.arange(1.0, 5.0)), np.repeat(np.eye(4)[:1], 5, axis=0)])
def test_keys_in_one_direction_are_kept_by_chance(keys):
    found = RecallEstimate.of(SoftKernel(2, 1.0, "tanh", 4), np.arange(1.0, 5.0), keys, 2)
    assert found.expected_recall(60) == 0.4
